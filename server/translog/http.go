package translog

import (
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"singularity/api"
	"singularity/server/route"
	"singularity/server/store"
)

// Routes returns the calls of the log, which anybody may make.
func (l *Log) Routes() []route.Route {
	return []route.Route{
		{Pattern: "GET /v1/log/key", Handler: l.serveKey, Class: route.KeyID},
		{Pattern: "GET /v1/log/checkpoint", Handler: l.serveCheckpoint, Class: route.KeyID},
		{Pattern: "GET /v1/log/tile/{path...}", Handler: route.Func(l.serveTile), Class: route.KeyID},
		{Pattern: "GET /v1/log/inclusion", Handler: route.Func(l.serveInclusion), Class: route.KeyID},
		{Pattern: "GET /v1/log/consistency", Handler: route.Func(l.serveConsistency), Class: route.KeyID},
	}
}

func (l *Log) serveKey(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte(l.key + "\n"))
}

func (l *Log) serveCheckpoint(w http.ResponseWriter, r *http.Request) {
	_, signed, err := l.newest(r.Context())
	if err != nil {
		route.Refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.Write(signed)
}

// number reads a parameter that is a number, or returns without if it is missing.
func number(r *http.Request, name string, without int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return without, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, route.Errorf(http.StatusBadRequest, "%s is no number", name)
	}
	return n, nil
}

func (l *Log) serveInclusion(w http.ResponseWriter, r *http.Request) error {
	index, err := number(r, "index", -1)
	if err != nil {
		return err
	}
	from, err := number(r, "from", 0)
	if err != nil {
		return err
	}
	p, err := l.Prove(r.Context(), index, from)
	if err != nil {
		return err
	}
	route.Data(w, p)
	return nil
}

func (l *Log) serveConsistency(w http.ResponseWriter, r *http.Request) error {
	t, _, err := l.newest(r.Context())
	if err != nil {
		return err
	}
	from, err := number(r, "from", 0)
	if err != nil {
		return err
	}
	to, err := number(r, "to", t.N)
	if err != nil {
		return err
	}
	if from < 1 || from > to || to > t.N {
		return route.Errorf(http.StatusBadRequest, "the log has %d lines: want 1 <= from <= to <= %d", t.N, t.N)
	}
	proof, err := tlog.ProveTree(to, from, tlog.TileHashReader(t, reader{r.Context(), l}))
	if err != nil {
		return err
	}
	route.Data(w, api.LogConsistency{From: from, To: to, Hashes: raw(proof)})
	return nil
}

// serveTile answers with a tile of hashes, tile/LEVEL/N, or of lines,
// tile/entries/N; with .p/WIDTH for one that is not full yet.
func (l *Log) serveTile(w http.ResponseWriter, r *http.Request) error {
	path := r.PathValue("path")
	rest, lines := strings.CutPrefix(path, "entries/")
	if lines {
		path = "0/" + rest
	}
	t, err := tlog.ParseTilePath("tile/8/" + path)
	if err != nil || t.L < 0 || t.H != tileHeight {
		return route.Errorf(http.StatusBadRequest, "this is no name of a tile")
	}
	tree, _, err := l.newest(r.Context())
	if err != nil {
		return err
	}
	if !within(t, tree.N) {
		return store.ErrNotFound
	}
	var data []byte
	if lines {
		data, err = l.lines(r, t)
	} else {
		data, err = l.readTile(r.Context(), t)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Write(data)
	return nil
}

// within tells whether a tree of n lines has all of a tile.
func within(t tlog.Tile, n int64) bool {
	if t.L > 7 {
		return false
	}
	have := n >> (t.L * tileHeight) // hashes of that level
	return t.N < 1<<40 && t.N<<tileHeight+int64(t.W) <= have
}

// lines returns the lines of a tile, each after its length.
func (l *Log) lines(r *http.Request, t tlog.Tile) ([]byte, error) {
	first := t.N << tileHeight
	items, _, err := l.entries.List(r.Context(), store.Query{From: lineKey(first), To: lineKey(first + int64(t.W)), Limit: 256})
	if err != nil {
		return nil, err
	}
	if len(items) != t.W {
		return nil, store.ErrNotFound
	}
	var out []byte
	for _, i := range items {
		out = binary.BigEndian.AppendUint16(out, uint16(len(i.Value.Data)))
		out = append(out, i.Value.Data...)
	}
	return out, nil
}
