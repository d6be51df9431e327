package translog

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"singularity/server/store"
)

const tileHeight = 8

func tileKey(t tlog.Tile) string { return fmt.Sprintf("%d/%016x", t.L, t.N) }

// writeTile stores a tile. One that is stored already with more hashes, of a
// write that ended before its checkpoint, is of the same lines.
func (l *Log) writeTile(ctx context.Context, t tlog.Tile, data []byte) error {
	for {
		_, err := l.tiles.Update(ctx, tileKey(t), func(old *tile) error {
			if len(old.Hashes) >= len(data) {
				return errLonger
			}
			old.Hashes = data
			return nil
		})
		if err == errLonger {
			return nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if _, err = l.tiles.Insert(ctx, tileKey(t), tile{data}); !errors.Is(err, store.ErrExists) {
			return err
		}
	}
}

var errLonger = errors.New("the tile is there")

// readTile returns the first hashes of a tile.
func (l *Log) readTile(ctx context.Context, t tlog.Tile) ([]byte, error) {
	i, err := l.tiles.Get(ctx, tileKey(t))
	if err != nil {
		return nil, err
	}
	if size := t.W * tlog.HashSize; len(i.Value.Hashes) >= size {
		return i.Value.Hashes[:size], nil
	}
	return nil, store.ErrNotFound
}

// reader gives tiles to tlog.TileHashReader, which checks them against a tree.
type reader struct {
	ctx context.Context
	l   *Log
}

func (r reader) Height() int { return tileHeight }

func (r reader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, t := range tiles {
		data, err := r.l.readTile(r.ctx, t)
		if err != nil {
			return nil, fmt.Errorf("tile %s: %w", t.Path(), err)
		}
		out = append(out, data)
	}
	return out, nil
}

func (r reader) SaveTiles([]tlog.Tile, [][]byte) {}
