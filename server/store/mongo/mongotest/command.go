package mongotest

import (
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

type collection struct {
	docs    map[string]bson.D
	indexes []index
}

type index struct {
	name   string
	key    bson.D
	unique bool
}

func lookup(d bson.D, key string) any {
	for _, e := range d {
		if e.Key == key {
			return e.Value
		}
	}
	return nil
}

func text(v any) string { s, _ := v.(string); return s }

func doc(v any) bson.D { d, _ := v.(bson.D); return d }

func list(v any) bson.A { a, _ := v.(bson.A); return a }

func number(v any) int64 {
	switch n := v.(type) {
	case int32:
		return int64(n)
	case int64:
		return n
	case float64:
		return int64(n)
	}
	return 0
}

// known are the fields of commands that a plain server takes; anything else, such
// as those of transactions, is refused.
var known = strings.Fields(`ordered writeConcern readConcern lsid $db $readPreference $clusterTime comment maxTimeMS documents updates deletes indexes filter sort limit
	projection batchSize singleBatch pipeline cursor index collection cursors skip`)

// command carries out a command, one at a time.
func (s *Server) command(cmd bson.D) (answer bson.D) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if p := recover(); p != nil {
			answer = fail(2, fmt.Sprint(p))
		}
	}()
	for _, e := range cmd[1:] {
		if !slices.Contains(known, e.Key) {
			return fail(40415, "unknown field "+e.Key)
		}
	}
	name, coll := cmd[0].Key, text(cmd[0].Value)
	ns := text(lookup(cmd, "$db")) + "." + coll
	switch name {
	case "ping", "endSessions":
		return ok()
	case "dropDatabase":
		for k := range s.colls {
			if strings.HasPrefix(k, text(lookup(cmd, "$db"))+".") {
				delete(s.colls, k)
			}
		}
		return ok()
	case "insert":
		return s.insert(s.collection(ns), list(lookup(cmd, "documents")))
	case "update":
		return s.update(s.collection(ns), list(lookup(cmd, "updates")))
	case "delete":
		return s.remove(s.collection(ns), list(lookup(cmd, "deletes")))
	case "find":
		docs := s.collection(ns).all(doc(lookup(cmd, "filter")))
		order(docs, doc(lookup(cmd, "sort")))
		if n := number(lookup(cmd, "limit")); n > 0 && int64(len(docs)) > n {
			docs = docs[:n]
		}
		return s.cursor(ns, docs)
	case "aggregate":
		return s.cursor(ns, pipe(s.collection(ns).all(bson.D{}), list(lookup(cmd, "pipeline"))))
	case "getMore":
		return s.more(number(cmd[0].Value), text(lookup(cmd, "$db"))+"."+text(lookup(cmd, "collection")))
	case "killCursors":
		for _, id := range list(lookup(cmd, "cursors")) {
			delete(s.cursors, number(id))
		}
		return ok()
	case "createIndexes":
		return s.collection(ns).createIndexes(list(lookup(cmd, "indexes")))
	case "listIndexes":
		return s.listIndexes(ns)
	case "dropIndexes":
		c := s.collection(ns)
		at := slices.IndexFunc(c.indexes, func(i index) bool { return i.name == text(lookup(cmd, "index")) })
		if at < 0 {
			return fail(27, "index not found")
		}
		c.indexes = slices.Delete(c.indexes, at, at+1)
		return ok()
	}
	return fail(59, "no such command: "+name)
}

func ok(more ...bson.E) bson.D { return append(bson.D(more), bson.E{Key: "ok", Value: 1.0}) }

func (s *Server) collection(ns string) *collection {
	if s.colls[ns] == nil {
		s.colls[ns] = &collection{docs: map[string]bson.D{}}
	}
	return s.colls[ns]
}

// all returns the documents that a filter has.
func (c *collection) all(filter bson.D) []bson.D {
	if id, ok := lookup(filter, "_id").(string); ok {
		if d, ok := c.docs[id]; ok && match(d, filter) {
			return []bson.D{d}
		}
		return nil
	}
	var out []bson.D
	for _, d := range c.docs {
		if match(d, filter) {
			out = append(out, d)
		}
	}
	return out
}

const batch = 101

func (s *Server) cursor(ns string, docs []bson.D) bson.D {
	var id int64
	first := docs
	if len(docs) > batch {
		s.next++
		id, first = s.next, docs[:batch]
		s.cursors[id] = docs[batch:]
	}
	return reply(ns, "firstBatch", first, id)
}

func reply(ns, name string, docs []bson.D, id int64) bson.D {
	all := bson.A{}
	for _, d := range docs {
		all = append(all, d)
	}
	return ok(bson.E{Key: "cursor", Value: bson.D{{Key: name, Value: all}, {Key: "id", Value: id}, {Key: "ns", Value: ns}}})
}

func (s *Server) more(id int64, ns string) bson.D {
	docs, here := s.cursors[id]
	if !here {
		return fail(43, "cursor not found")
	}
	if len(docs) > batch {
		s.cursors[id] = docs[batch:]
		return reply(ns, "nextBatch", docs[:batch], id)
	}
	delete(s.cursors, id)
	return reply(ns, "nextBatch", docs, 0)
}

func writeError(text string) bson.E {
	return bson.E{Key: "writeErrors", Value: bson.A{bson.D{{Key: "index", Value: int32(0)}, {Key: "code", Value: int32(11000)}, {Key: "errmsg", Value: "E11000 duplicate key error: " + text}}}}
}

func (s *Server) insert(c *collection, docs bson.A) bson.D {
	for n, v := range docs {
		d := doc(v)
		id := text(lookup(d, "_id"))
		if _, here := c.docs[id]; here {
			return ok(bson.E{Key: "n", Value: int32(n)}, writeError("_id"))
		}
		if name := c.conflict(d); name != "" {
			return ok(bson.E{Key: "n", Value: int32(n)}, writeError(name))
		}
		c.docs[id] = d
	}
	return ok(bson.E{Key: "n", Value: int32(len(docs))})
}

// conflict names the unique index in which another document has a value of d.
func (c *collection) conflict(d bson.D) string {
	for _, i := range c.indexes {
		if !i.unique {
			continue
		}
		mine := elements(lookup(d, i.key[0].Key))
		for id, other := range c.docs {
			if id == text(lookup(d, "_id")) {
				continue
			}
			for _, v := range elements(lookup(other, i.key[0].Key)) {
				if slices.ContainsFunc(mine, func(m any) bool { return compare(m, v) == 0 }) {
					return i.name
				}
			}
		}
	}
	return ""
}

func (s *Server) update(c *collection, updates bson.A) bson.D {
	matched := 0
	for _, v := range updates {
		u := doc(v)
		change, upsert := doc(lookup(u, "u")), lookup(u, "upsert") == true
		docs := c.all(doc(lookup(u, "q")))
		if len(docs) == 0 && upsert {
			return s.insert(c, bson.A{change})
		}
		if len(docs) == 0 {
			continue
		}
		fresh := change
		if len(change) > 0 && change[0].Key == "$set" {
			fresh = slices.Clone(docs[0])
			for _, e := range doc(change[0].Value) {
				at := slices.IndexFunc(fresh, func(f bson.E) bool { return f.Key == e.Key })
				if at < 0 {
					fresh = append(fresh, e)
				} else {
					fresh[at] = e
				}
			}
		} else if len(change) > 0 && strings.HasPrefix(change[0].Key, "$") {
			panic("unknown operator " + change[0].Key)
		}
		if name := c.conflict(fresh); name != "" {
			return ok(bson.E{Key: "n", Value: int32(0)}, bson.E{Key: "nModified", Value: int32(0)}, writeError(name))
		}
		c.docs[text(lookup(fresh, "_id"))] = fresh
		matched++
	}
	return ok(bson.E{Key: "n", Value: int32(matched)}, bson.E{Key: "nModified", Value: int32(matched)})
}

func (s *Server) remove(c *collection, deletes bson.A) bson.D {
	n := 0
	for _, v := range deletes {
		for _, d := range c.all(doc(lookup(doc(v), "q"))) {
			delete(c.docs, text(lookup(d, "_id")))
			n++
			if number(lookup(doc(v), "limit")) == 1 {
				break
			}
		}
	}
	return ok(bson.E{Key: "n", Value: int32(n)})
}

func (c *collection) createIndexes(models bson.A) bson.D {
	for _, v := range models {
		m := doc(v)
		for _, e := range m {
			if !slices.Contains([]string{"key", "name", "unique", "v"}, e.Key) {
				return fail(67, "unsupported option of an index: "+e.Key)
			}
		}
		i := index{name: text(lookup(m, "name")), key: doc(lookup(m, "key")), unique: lookup(m, "unique") == true}
		if slices.ContainsFunc(c.indexes, func(o index) bool { return o.name == i.name }) {
			continue
		}
		c.indexes = append(c.indexes, i)
		for _, d := range c.docs {
			if name := c.conflict(d); name != "" {
				c.indexes = c.indexes[:len(c.indexes)-1]
				return fail(11000, "E11000 duplicate key error: "+name)
			}
		}
	}
	return ok()
}

func (s *Server) listIndexes(ns string) bson.D {
	c := s.colls[ns]
	if c == nil {
		return fail(26, "ns does not exist")
	}
	docs := []bson.D{{{Key: "v", Value: int32(2)}, {Key: "key", Value: bson.D{{Key: "_id", Value: int32(1)}}}, {Key: "name", Value: "_id_"}}}
	for _, i := range c.indexes {
		docs = append(docs, bson.D{{Key: "v", Value: int32(2)}, {Key: "key", Value: i.key}, {Key: "name", Value: i.name}, {Key: "unique", Value: i.unique}})
	}
	return s.cursor(ns, docs)
}
