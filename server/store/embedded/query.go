package embedded

import (
	"strings"

	"singularity/server/store"
)

// selection writes a query in SQL. Text of the query is only ever a parameter.
func (r *Records) selection(collection string, q store.Query, count bool) (string, []any, error) {
	value, key, err := q.Position()
	if err != nil {
		return "", nil, err
	}
	var where strings.Builder
	var args []any
	and := func(text string, a ...any) {
		where.WriteString(" AND " + text)
		args = append(args, a...)
	}
	compare, order := ">", ""
	if q.Reverse {
		compare, order = "<", " DESC"
	}
	from, by := "record r WHERE r.coll = ?", "r.key"+order
	columns := "r.key, '', r.rev, r.expires, r.data"
	args = append(args, collection)
	lo, hi := q.Bounds()
	ranged := q.Prefix != "" || q.From != "" || q.To != ""
	switch {
	case q.Index == "":
		if ranged {
			and("r.key >= ? AND r.key < ?", lo, hi)
		}
	case q.Contains != "":
		and("r.key IN (SELECT key FROM entry WHERE coll = ? AND ix = ? AND instr(value, ?) > 0)", collection, q.Index, q.Contains)
	default:
		from = "entry e JOIN record r ON r.coll = e.coll AND r.key = e.key WHERE e.coll = ?"
		and("e.ix = ?", q.Index)
		if q.Equal != "" {
			and("e.value = ?", q.Equal)
			by = "e.key" + order
			break
		}
		columns = "r.key, e.value, r.rev, r.expires, r.data"
		by = "e.value" + order + ", e.key" + order
		and("e.value >= ? AND e.value < ?", lo, hi)
		if key != "" {
			and("(e.value, e.key) "+compare+" (?, ?)", value, key)
		}
	}
	if key != "" && q.ByKey() {
		column := "r.key"
		if q.Equal != "" {
			column = "e.key"
		}
		and(column+" "+compare+" ?", key)
	}
	and("(r.expires IS NULL OR r.expires > ?)", r.now().UnixMilli())
	if count {
		return "SELECT count(*) FROM " + from + where.String(), args, nil
	}
	// One more than the page has tells whether there is another.
	return "SELECT " + columns + " FROM " + from + where.String() + " ORDER BY " + by + " LIMIT ?", append(args, q.Size()+1), nil
}
