package mongotest

import (
	"bytes"
	"cmp"
	"regexp"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// elements are the values that a condition on a field looks at.
func elements(v any) []any {
	if a, ok := v.(bson.A); ok {
		return a
	}
	return []any{v}
}

// rank is the order of types.
func rank(v any) int {
	switch v.(type) {
	case nil:
		return 1
	case int32, int64, float64:
		return 2
	case string:
		return 3
	case bson.Binary:
		return 4
	}
	return 5
}

func compare(a, b any) int {
	if c := cmp.Compare(rank(a), rank(b)); c != 0 {
		return c
	}
	switch x := a.(type) {
	case string:
		return cmp.Compare(x, b.(string))
	case bson.Binary:
		return bytes.Compare(x.Data, b.(bson.Binary).Data)
	}
	return cmp.Compare(number(a), number(b))
}

func match(d, filter bson.D) bool {
	for _, e := range filter {
		if e.Key == "$or" {
			if !slices.ContainsFunc(list(e.Value), func(v any) bool { return match(d, doc(v)) }) {
				return false
			}
			continue
		}
		if strings.HasPrefix(e.Key, "$") || strings.Contains(e.Key, ".") {
			panic("unknown operator " + e.Key)
		}
		values := elements(lookup(d, e.Key))
		ops, isOps := e.Value.(bson.D)
		if !isOps {
			if !slices.ContainsFunc(values, func(v any) bool { return compare(v, e.Value) == 0 }) {
				return false
			}
			continue
		}
		for _, op := range ops {
			if op.Key == "$elemMatch" {
				if _, isArray := lookup(d, e.Key).(bson.A); !isArray || !slices.ContainsFunc(values, func(v any) bool { return all(v, doc(op.Value)) }) {
					return false
				}
				continue
			}
			if !slices.ContainsFunc(values, func(v any) bool { return one(v, op) }) {
				return false
			}
		}
	}
	return true
}

func all(v any, ops bson.D) bool {
	for _, op := range ops {
		if !one(v, op) {
			return false
		}
	}
	return true
}

// one is one condition on one value; it holds for values of its own type only.
func one(v any, op bson.E) bool {
	switch op.Key {
	case "$in":
		return slices.ContainsFunc(list(op.Value), func(w any) bool { return compare(v, w) == 0 })
	case "$regex":
		s, ok := v.(string)
		return ok && regexp.MustCompile("(?s)"+op.Value.(bson.Regex).Pattern).MatchString(s)
	}
	if rank(v) != rank(op.Value) {
		return false
	}
	c := compare(v, op.Value)
	switch op.Key {
	case "$gt":
		return c > 0
	case "$gte":
		return c >= 0
	case "$lt":
		return c < 0
	case "$lte":
		return c <= 0
	}
	panic("unknown operator " + op.Key)
}

// order sorts documents; one with several values is where its least belongs, and
// backwards where its greatest does.
func order(docs []bson.D, by bson.D) {
	end := func(d bson.D, key string, back bool) any {
		values := slices.Clone(elements(lookup(d, key)))
		slices.SortFunc(values, compare)
		switch {
		case len(values) == 0:
			return nil
		case back:
			return values[len(values)-1]
		}
		return values[0]
	}
	slices.SortFunc(docs, func(a, b bson.D) int {
		for _, e := range by {
			back := number(e.Value) < 0
			c := compare(end(a, e.Key, back), end(b, e.Key, back))
			if back {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
}

// pipe carries out the stages of an aggregation.
func pipe(docs []bson.D, stages bson.A) []bson.D {
	for _, v := range stages {
		stage := doc(v)[0]
		var out []bson.D
		switch stage.Key {
		case "$match":
			for _, d := range docs {
				if match(d, doc(stage.Value)) {
					out = append(out, d)
				}
			}
		case "$unwind":
			key := strings.TrimPrefix(text(stage.Value), "$")
			for _, d := range docs {
				for _, e := range elements(lookup(d, key)) {
					out = append(out, bson.D{{Key: "_id", Value: lookup(d, "_id")}, {Key: key, Value: e}})
				}
			}
		case "$project":
			out = docs
		case "$sort":
			out = docs
			order(out, doc(stage.Value))
		case "$limit":
			out = docs[:min(int64(len(docs)), number(stage.Value))]
		case "$group":
			if len(docs) > 0 {
				out = []bson.D{{{Key: "_id", Value: nil}, {Key: "n", Value: int64(len(docs))}}}
			}
		default:
			panic("unknown stage " + stage.Key)
		}
		docs = out
	}
	return docs
}
