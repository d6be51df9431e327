package mongo

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"singularity/server/store"
)

// newRev returns a revision: random, so that none comes twice for a key, and a
// write that broke off is known by it.
func newRev() int64 {
	var b [8]byte
	rand.Read(b[:])
	return int64(binary.LittleEndian.Uint64(b[:])>>1) | 1
}

// values is what is stored of a document's values in an index.
func values(i store.IndexSpec, d store.Doc) bson.A {
	list := bson.A{}
	for _, v := range d.Index[i.Name] {
		list = append(list, v)
	}
	if i.Unique && len(list) == 0 {
		// Documents without a value would else all have the same, none.
		list = append(list, bson.Binary{Data: []byte(d.Key)})
	}
	return list
}

func (r *Records) whole(s store.Schema, d store.Doc, rev, prev int64) bson.D {
	data := d.Data
	if data == nil {
		data = []byte{}
	}
	doc := bson.D{{Key: "_id", Value: d.Key}, {Key: "rev", Value: rev}, {Key: "prev", Value: prev}, {Key: "exp", Value: toUnix(d.Expires)}, {Key: "data", Value: data}}
	for _, i := range s.Indexes {
		doc = append(doc, bson.E{Key: field(i.Name), Value: values(i, d)})
	}
	return doc
}

func (r *Records) check(collection string, d store.Doc) (store.Schema, error) {
	s, err := r.schema(collection)
	if err != nil {
		return s, err
	}
	for _, i := range s.Indexes {
		if i.Unique && len(d.Index[i.Name]) > 1 && !r.several {
			return s, fmt.Errorf("%w: this server would not keep several values of the unique index %s of %s apart", store.ErrUnsupported, i.Name, s.Name)
		}
	}
	return s, store.CheckDoc(s, d)
}

// taken tells whether a write failed by a unique index. A compatible server may
// say so in its own words when a replacement does.
func taken(err error) bool {
	var s mongo.ServerError
	return mongo.IsDuplicateKeyError(err) || errors.As(err, &s) && s.HasErrorCode(1) && s.HasErrorMessage("UNIQUE constraint failed")
}

// Insert adds a document.
func (r *Records) Insert(ctx context.Context, collection string, d store.Doc) (int64, error) {
	s, err := r.check(collection, d)
	if err != nil {
		return 0, err
	}
	rev, c := newRev(), r.db.Collection(collection)
	unsure := false
	err = r.try(ctx, callTime, func(ctx context.Context) error {
		for {
			_, err := c.InsertOne(ctx, r.whole(s, d, rev, 0))
			if !taken(err) {
				unsure = unsure || err != nil
				return err
			}
			if unsure { // the call before may have been this write
				if now, err := r.look(ctx, collection, d.Key); err != nil || now != nil && (now.Rev == rev || now.Prev == rev) {
					return err
				}
			}
			if gone, err := r.giveWay(ctx, s, d, true); err != nil {
				return err
			} else if gone == 0 {
				return fmt.Errorf("the key or a value of a document of %s %w", collection, store.ErrExists)
			}
		}
	})
	if err != nil {
		return 0, err
	}
	return rev, nil
}

// giveWay removes documents that have expired and have the key of d, if it is
// new, or one of its values in a unique index.
func (r *Records) giveWay(ctx context.Context, s store.Schema, d store.Doc, fresh bool) (int64, error) {
	same := bson.A{}
	if fresh {
		same = append(same, bson.D{{Key: "_id", Value: d.Key}})
	}
	for _, i := range s.Indexes {
		for _, v := range d.Index[i.Name] {
			if i.Unique {
				same = append(same, bson.D{{Key: field(i.Name), Value: v}})
			}
		}
	}
	if len(same) == 0 {
		return 0, nil
	}
	res, err := r.db.Collection(s.Name).DeleteMany(ctx, bson.D{{Key: "exp", Value: bson.D{{Key: "$lte", Value: r.now().UnixMilli()}}}, {Key: "$or", Value: same}})
	if err != nil {
		return 0, err
	}
	return res.DeletedCount, nil
}

// Replace writes a document that nobody has changed meanwhile.
func (r *Records) Replace(ctx context.Context, collection string, d store.Doc) (int64, error) {
	s, err := r.check(collection, d)
	if err != nil {
		return 0, err
	}
	rev, c := newRev(), r.db.Collection(collection)
	unsure := false
	err = r.try(ctx, callTime, func(ctx context.Context) error {
		for {
			res, err := c.ReplaceOne(ctx, bson.D{{Key: "_id", Value: d.Key}, {Key: "rev", Value: d.Rev}, r.alive()}, r.whole(s, d, rev, d.Rev))
			switch {
			case taken(err):
				if gone, err := r.giveWay(ctx, s, d, false); err != nil {
					return err
				} else if gone == 0 {
					return fmt.Errorf("a value of a document of %s %w", collection, store.ErrExists)
				}
			case err != nil:
				unsure = true
				return err
			case res.MatchedCount > 0:
				return nil
			default:
				return r.replaced(ctx, collection, d, rev, unsure)
			}
		}
	})
	if err != nil {
		return 0, err
	}
	return rev, nil
}

// replaced tells what has become of a replacement that found another revision,
// or none: unsure means that it may be the one of a call before.
func (r *Records) replaced(ctx context.Context, collection string, d store.Doc, rev int64, unsure bool) error {
	now, err := r.look(ctx, collection, d.Key)
	switch {
	case err != nil:
		return err
	case now != nil && (now.Rev == rev || now.Prev == rev):
		return nil
	case unsure && (now == nil || now.Prev != d.Rev):
		return errUnknown
	case now == nil || now.Exp <= r.now().UnixMilli():
		return store.ErrNotFound
	}
	return store.ErrConflict
}

// Delete removes a document.
func (r *Records) Delete(ctx context.Context, collection, key string, rev int64) error {
	if _, err := r.schema(collection); err != nil {
		return err
	}
	c, unsure := r.db.Collection(collection), false
	return r.try(ctx, callTime, func(ctx context.Context) error {
		filter := bson.D{{Key: "_id", Value: key}, r.alive()}
		if rev != 0 {
			filter = append(filter, bson.E{Key: "rev", Value: rev})
		}
		res, err := c.DeleteOne(ctx, filter)
		if err != nil {
			unsure = true
			return err
		}
		if res.DeletedCount > 0 {
			return nil
		}
		now, err := r.look(ctx, collection, key)
		switch {
		case err != nil:
			return err
		case now != nil && now.Exp > r.now().UnixMilli():
			return store.ErrConflict
		case now != nil: // it had expired, and is there yet
			return store.ErrNotFound
		case unsure && rev == 0:
			return nil
		case unsure:
			// Of two who delete one revision only one may believe that it did.
			return errUnknown
		}
		return store.ErrNotFound
	})
}

// Sweep removes what has expired.
func (r *Records) Sweep(ctx context.Context) (int64, error) {
	r.mu.RLock()
	var names []string
	for name := range r.schemas {
		names = append(names, name)
	}
	r.mu.RUnlock()
	var total int64
	var failed error
	for _, name := range names {
		err := r.try(ctx, longTime, func(ctx context.Context) error {
			res, err := r.db.Collection(name).DeleteMany(ctx, bson.D{{Key: "exp", Value: bson.D{{Key: "$lte", Value: r.now().UnixMilli()}}}})
			if err == nil {
				total += res.DeletedCount
			}
			return err
		})
		failed = errors.Join(failed, err)
	}
	return total, failed
}
