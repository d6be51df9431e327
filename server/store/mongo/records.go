package mongo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"singularity/server/store"
)

// never is the end of a document that has none.
const never = math.MaxInt64

func toUnix(t time.Time) int64 {
	if t.IsZero() {
		return never
	}
	return t.UnixMilli()
}

func fromUnix(ms int64) time.Time {
	if ms == never {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// stored is a document as the server has it, without its indexes.
type stored struct {
	Key  string `bson:"_id"`
	Rev  int64  `bson:"rev"`
	Prev int64  `bson:"prev"`
	Exp  int64  `bson:"exp"`
	Data []byte `bson:"data"`
}

type found struct {
	store.Doc
	value   string // by which it was found in an index
	several bool   // it has more of them
	gone    bool   // it was deleted since
}

func (r *Records) alive() bson.E {
	return bson.E{Key: "exp", Value: bson.D{{Key: "$gt", Value: r.now().UnixMilli()}}}
}

// Get reads one document.
func (r *Records) Get(ctx context.Context, collection, key string) (store.Doc, error) {
	if _, err := r.schema(collection); err != nil {
		return store.Doc{}, err
	}
	d, err := r.look(ctx, collection, key)
	if err != nil {
		return store.Doc{}, err
	}
	if d == nil || d.Exp <= r.now().UnixMilli() {
		return store.Doc{}, store.ErrNotFound
	}
	return store.Doc{Key: key, Rev: d.Rev, Data: d.Data, Expires: fromUnix(d.Exp)}, nil
}

// look reads a document, also one that has expired; nil if there is none.
func (r *Records) look(ctx context.Context, collection, key string) (*stored, error) {
	var d stored
	err := r.try(ctx, callTime, func(ctx context.Context) error {
		return r.db.Collection(collection).FindOne(ctx, bson.D{{Key: "_id", Value: key}}, options.FindOne().SetProjection(columns(""))).Decode(&d)
	})
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil
	}
	return &d, err
}

// columns is what is read of a document, and its values in an index.
func columns(index string) bson.D {
	c := bson.D{{Key: "rev", Value: 1}, {Key: "prev", Value: 1}, {Key: "exp", Value: 1}, {Key: "data", Value: 1}}
	if index != "" {
		c = append(c, bson.E{Key: field(index), Value: 1})
	}
	return c
}

// List answers a query.
func (r *Records) List(ctx context.Context, collection string, q store.Query) (store.Page, error) {
	s, err := r.schema(collection)
	if err != nil {
		return store.Page{}, err
	}
	if err := q.Check(s); err != nil {
		return store.Page{}, err
	}
	value, key, err := q.Position()
	if err != nil {
		return store.Page{}, err
	}
	var docs []found
	if q.ByKey() {
		docs, err = r.find(ctx, collection, append(r.byKey(q, key), r.alive()), bson.D{{Key: "_id", Value: direction(q)}}, q.Size()+1, "")
	} else {
		docs, err = r.listValues(ctx, collection, q, value, key)
	}
	if err != nil {
		return store.Page{}, err
	}
	var p store.Page
	if len(docs) > q.Size() {
		docs = docs[:q.Size()]
		end := docs[len(docs)-1]
		p.Next = q.Cursor(end.value, end.Key)
	}
	for _, d := range docs {
		if !d.gone {
			p.Docs = append(p.Docs, d.Doc)
		}
	}
	return p, nil
}

func direction(q store.Query) int {
	if q.Reverse {
		return -1
	}
	return 1
}

// byKey is the filter of a query whose answer is in the order of keys; after is
// the key of the last document of the page before.
func (r *Records) byKey(q store.Query, after string) bson.D {
	lo, hi := q.Bounds()
	keys := bson.D{}
	if q.Index == "" {
		keys = bson.D{{Key: "$gte", Value: lo}, {Key: "$lt", Value: hi}}
	}
	if after != "" && q.Reverse {
		keys = append(keys, bson.E{Key: "$lt", Value: after})
		if hi <= after && q.Index == "" {
			keys = bson.D{{Key: "$gte", Value: lo}, {Key: "$lt", Value: hi}}
		} else if q.Index == "" {
			keys = bson.D{{Key: "$gte", Value: lo}, {Key: "$lt", Value: after}}
		}
	} else if after != "" {
		keys = append(keys, bson.E{Key: "$gt", Value: after})
	}
	f := bson.D{}
	if len(keys) > 0 {
		f = append(f, bson.E{Key: "_id", Value: keys})
	}
	switch {
	case q.Equal != "":
		f = append(f, bson.E{Key: field(q.Index), Value: q.Equal})
	case q.Contains != "":
		f = append(f, bson.E{Key: field(q.Index), Value: bson.D{{Key: "$regex", Value: bson.Regex{Pattern: regexp.QuoteMeta(q.Contains)}}}})
	}
	return f
}

// rangeOf says which values of an index a query has.
func rangeOf(q store.Query) bson.D {
	lo, hi := q.Bounds()
	return bson.D{{Key: "$gte", Value: lo}, {Key: "$lt", Value: hi}}
}

// beyond is the filter of what comes after a place; wrap makes a condition on a
// value one on a field.
func beyond(q store.Query, value, key string, wrap func(bson.D) any) bson.D {
	name, compare := field(q.Index), "$gt"
	if q.Reverse {
		compare = "$lt"
	}
	if key == "" {
		return bson.D{{Key: name, Value: wrap(rangeOf(q))}}
	}
	lo, hi := q.Bounds()
	rest := bson.D{{Key: compare, Value: value}, {Key: "$lt", Value: hi}}
	if q.Reverse {
		rest = bson.D{{Key: "$gte", Value: lo}, {Key: compare, Value: value}}
	}
	return bson.D{{Key: "$or", Value: bson.A{
		bson.D{{Key: name, Value: wrap(rest)}},
		bson.D{{Key: name, Value: value}, {Key: "_id", Value: bson.D{{Key: compare, Value: key}}}},
	}}}
}

// listValues answers a query over the values of an index.
//
// Sorted by a field with several values the server puts a document where its
// least (backwards: greatest) value belongs. If no document of the page has
// several, that is the answer: one that has, and belongs here with another value,
// would be among them. Else each value is made a row of its own.
func (r *Records) listValues(ctx context.Context, collection string, q store.Query, value, key string) ([]found, error) {
	name := collection + "." + q.Index
	r.mu.RLock()
	split := r.split[name]
	r.mu.RUnlock()
	order := bson.D{{Key: field(q.Index), Value: direction(q)}, {Key: "_id", Value: direction(q)}}
	if !split {
		in := func(d bson.D) any { return bson.D{{Key: "$elemMatch", Value: d}} }
		docs, err := r.find(ctx, collection, append(beyond(q, value, key, in), r.alive()), order, q.Size()+1, q.Index)
		if err != nil {
			return nil, err
		}
		for _, d := range docs {
			split = split || d.several
		}
		if !split {
			return docs, nil
		}
		r.mu.Lock()
		r.split[name] = true
		r.mu.Unlock()
	}
	return r.rows(ctx, collection, q, value, key, order)
}

// rows finds the values first, then their documents: so the server sorts little.
func (r *Records) rows(ctx context.Context, collection string, q store.Query, value, key string, order bson.D) ([]found, error) {
	plain := func(d bson.D) any { return d }
	pipeline := bson.A{
		bson.D{{Key: "$match", Value: bson.D{{Key: field(q.Index), Value: bson.D{{Key: "$elemMatch", Value: rangeOf(q)}}}, r.alive()}}},
		bson.D{{Key: "$unwind", Value: "$" + field(q.Index)}},
		bson.D{{Key: "$match", Value: beyond(q, value, key, plain)}},
		bson.D{{Key: "$project", Value: bson.D{{Key: field(q.Index), Value: 1}}}},
		bson.D{{Key: "$sort", Value: order}},
		bson.D{{Key: "$limit", Value: q.Size() + 1}},
	}
	var docs []found
	err := r.try(ctx, longTime, func(ctx context.Context) error {
		c, err := r.db.Collection(collection).Aggregate(ctx, pipeline)
		if err != nil {
			return err
		}
		docs, err = read(ctx, c, q.Index)
		return err
	})
	if err != nil || len(docs) == 0 {
		return nil, err
	}
	keys := make([]string, len(docs))
	for i, d := range docs {
		keys[i] = d.Key
	}
	whole, err := r.find(ctx, collection, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: keys}}}, r.alive()}, bson.D{{Key: "_id", Value: 1}}, len(keys), "")
	if err != nil {
		return nil, err
	}
	of := map[string]store.Doc{}
	for _, d := range whole {
		of[d.Key] = d.Doc
	}
	for i := range docs {
		d, ok := of[docs[i].Key]
		docs[i].gone = !ok
		if ok {
			docs[i].Doc = d
		}
	}
	return docs, nil
}

func (r *Records) find(ctx context.Context, collection string, filter, order bson.D, limit int, index string) ([]found, error) {
	var docs []found
	err := r.try(ctx, longTime, func(ctx context.Context) error {
		c, err := r.db.Collection(collection).Find(ctx, filter, options.Find().SetSort(order).SetLimit(int64(limit)).SetProjection(columns(index)))
		if err != nil {
			return err
		}
		docs, err = read(ctx, c, index)
		return err
	})
	return docs, err
}

// read reads the whole answer.
func read(ctx context.Context, c *mongo.Cursor, index string) ([]found, error) {
	defer c.Close(context.WithoutCancel(ctx))
	var out []found
	for c.Next(ctx) {
		var d stored
		if err := c.Decode(&d); err != nil {
			return nil, err
		}
		f := found{Doc: store.Doc{Key: d.Key, Rev: d.Rev, Data: d.Data, Expires: fromUnix(d.Exp)}}
		if index != "" {
			var err error
			if f.value, f.several, err = valueOf(c.Current.Lookup(field(index))); err != nil {
				return nil, fmt.Errorf("the document %q is damaged: %w", d.Key, err)
			}
		}
		out = append(out, f)
	}
	return out, c.Err()
}

// valueOf reads the value of an index, a row's or the first of a document's.
func valueOf(v bson.RawValue) (string, bool, error) {
	if text, ok := v.StringValueOK(); ok {
		return text, false, nil
	}
	list, ok := v.ArrayOK()
	if !ok {
		return "", false, fmt.Errorf("a value of an index has the type %s", v.Type)
	}
	all, err := list.Values()
	if err != nil || len(all) == 0 {
		return "", false, errors.Join(errors.New("an index has no value"), err)
	}
	text, ok := all[0].StringValueOK()
	if !ok {
		return "", false, fmt.Errorf("a value of an index has the type %s", all[0].Type)
	}
	return text, len(all) > 1, nil
}

// Count counts what a query has.
func (r *Records) Count(ctx context.Context, collection string, q store.Query) (int64, error) {
	s, err := r.schema(collection)
	if err != nil {
		return 0, err
	}
	if err := q.Check(s); err != nil {
		return 0, err
	}
	match := func(d bson.D) bson.D { return bson.D{{Key: "$match", Value: d}} }
	var pipeline bson.A
	if q.ByKey() {
		pipeline = bson.A{match(append(r.byKey(q, ""), r.alive()))}
	} else {
		name := field(q.Index)
		pipeline = bson.A{
			match(bson.D{{Key: name, Value: bson.D{{Key: "$elemMatch", Value: rangeOf(q)}}}, r.alive()}),
			bson.D{{Key: "$unwind", Value: "$" + name}},
			match(bson.D{{Key: name, Value: rangeOf(q)}}),
		}
	}
	pipeline = append(pipeline, bson.D{{Key: "$group", Value: bson.D{{Key: "_id", Value: nil}, {Key: "n", Value: bson.D{{Key: "$sum", Value: int64(1)}}}}}})
	var rows []struct{ N int64 }
	err = r.try(ctx, longTime, func(ctx context.Context) error {
		c, err := r.db.Collection(collection).Aggregate(ctx, pipeline)
		if err != nil {
			return err
		}
		rows = nil
		return c.All(ctx, &rows)
	})
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	return rows[0].N, nil
}
