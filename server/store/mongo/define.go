package mongo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"singularity/server/store"
)

// Names of collections that are ours alone: those of package store begin with a
// letter.
const (
	specs  = "_schemas"
	probes = "_probe"
)

var schemaName = regexp.MustCompile(`^[a-z][a-z_]{0,62}$`)

func field(index string) string { return "x_" + index }

// probe finds out what the server keeps of what it promises, as compatible ones
// differ. It must hold unique indexes, and make of several replacements of one
// revision one; whether an index keeps each of several values apart is noted.
func (r *Records) probe(ctx context.Context, trial bool) error {
	c := r.db.Collection(probes)
	if err := r.index(ctx, c, mongo.IndexModel{Keys: bson.D{{Key: "x", Value: 1}}, Options: options.Index().SetUnique(true)}); err != nil {
		return fmt.Errorf("cannot make an index in MongoDB: %w", err)
	}
	id := store.NewID()
	defer r.try(context.WithoutCancel(ctx), callTime, func(ctx context.Context) error {
		_, err := c.DeleteMany(ctx, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: []string{id + "a", id + "b", id + "c", id + "d"}}}}})
		return err
	})
	held := func(key string, values ...string) (bool, error) {
		err := r.try(ctx, callTime, func(ctx context.Context) error {
			_, err := c.InsertOne(ctx, bson.D{{Key: "_id", Value: id + key}, {Key: "rev", Value: 0}, {Key: "x", Value: values}})
			return err
		})
		if taken(err) {
			return true, nil
		}
		return false, err
	}
	if _, err := held("a", id+"1"); err != nil {
		return fmt.Errorf("cannot write to MongoDB: %w", err)
	}
	if one, err := held("b", id+"1"); err != nil || !one {
		return errors.Join(errors.New("cannot use this MongoDB: its unique indexes do not hold"), err)
	}
	if _, err := held("c", id+"2", id+"3"); err != nil {
		return err
	}
	var err error
	if r.several, err = held("d", id+"3"); err != nil || trial {
		return err
	}
	return r.probeReplace(ctx, c, id+"a")
}

const probeTime = 300 * time.Millisecond

// probeReplace lets several replace one revision of a document at once.
func (r *Records) probeReplace(ctx context.Context, c *mongo.Collection, id string) error {
	const rounds, writers = 10, 8
	// Connections are made meanwhile, and only those that are there compete.
	for round, end := 0, time.Now().Add(probeTime); round < rounds || time.Now().Before(end); round++ {
		won := make(chan int64, writers)
		for range writers {
			go func() {
				ctx, cancel := context.WithTimeout(ctx, callTime)
				defer cancel()
				res, err := c.ReplaceOne(ctx, bson.D{{Key: "_id", Value: id}, {Key: "rev", Value: round}}, bson.D{{Key: "_id", Value: id}, {Key: "rev", Value: round + 1}, {Key: "x", Value: []string{id}}})
				if err != nil {
					won <- 0 // of a slow server nothing is learnt here
					return
				}
				won <- res.MatchedCount
			}()
		}
		var sum int64
		for range writers {
			sum += <-won
		}

		if sum > 1 {
			return fmt.Errorf("cannot use this MongoDB: of %d replacements of one revision at once it made %d, so that changes would be lost", writers, sum)
		}
	}
	return nil
}

// index makes an index; one that is there already is no fault.
func (r *Records) index(ctx context.Context, c *mongo.Collection, models ...mongo.IndexModel) error {
	return r.try(ctx, longTime, func(ctx context.Context) error {
		_, err := c.Indexes().CreateMany(ctx, models)
		return err
	})
}

func (r *Records) schema(collection string) (store.Schema, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s, ok := r.schemas[collection]
	if !ok {
		return s, fmt.Errorf("%w: no collection %q", store.ErrInvalid, collection)
	}
	return s, nil
}

// Define notes the schema and makes indexes anew that were declared otherwise.
// The new declaration is noted at the end: what a crash cuts is done again. No
// server with other indexes may write meanwhile; values that it let in twice
// make the unique index fail, and so the start.
func (r *Records) Define(ctx context.Context, s store.Schema, index func([]byte) (map[string][]string, error)) error {
	if !schemaName.MatchString(s.Name) {
		return fmt.Errorf("%w: %q does not name a collection", store.ErrInvalid, s.Name)
	}
	for _, i := range s.Indexes {
		if !schemaName.MatchString(i.Name) {
			return fmt.Errorf("%w: %q does not name an index", store.ErrInvalid, i.Name)
		}
	}
	spec, err := json.Marshal(s)
	if err != nil {
		return err
	}
	var old struct{ Spec string }
	err = r.try(ctx, callTime, func(ctx context.Context) error {
		return r.db.Collection(specs).FindOne(ctx, bson.D{{Key: "_id", Value: s.Name}}).Decode(&old)
	})
	if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
		return err
	}
	if old.Spec != string(spec) {
		if err := r.reindex(ctx, s, index); err != nil {
			return err
		}
		err := r.try(ctx, callTime, func(ctx context.Context) error {
			_, err := r.db.Collection(specs).ReplaceOne(ctx, bson.D{{Key: "_id", Value: s.Name}}, bson.D{{Key: "_id", Value: s.Name}, {Key: "spec", Value: string(spec)}}, options.Replace().SetUpsert(true))
			return err
		})
		if err != nil && !mongo.IsDuplicateKeyError(err) { // another server noted the same
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.schemas[s.Name] = s
	return nil
}

// reindexed is how many documents are read at once for it.
const reindexed = 100

func (r *Records) reindex(ctx context.Context, s store.Schema, index func([]byte) (map[string][]string, error)) error {
	c := r.db.Collection(s.Name)
	if err := r.dropIndexes(ctx, c); err != nil {
		return err
	}
	for after := ""; ; {
		docs, err := r.find(ctx, s.Name, bson.D{{Key: "_id", Value: bson.D{{Key: "$gt", Value: after}}}}, bson.D{{Key: "_id", Value: 1}}, reindexed, "")
		if err != nil {
			return err
		}
		for _, d := range docs {
			if d.Index, err = index(d.Data); err != nil {
				return fmt.Errorf("the document %q of %s: %w", d.Key, s.Name, err)
			}
			if err := r.setIndex(ctx, c, s, d); err != nil {
				return err
			}
			after = d.Key
		}
		if len(docs) == 0 {
			break
		}
	}
	models := []mongo.IndexModel{{Keys: bson.D{{Key: "exp", Value: 1}}}}
	for _, i := range s.Indexes {
		if i.Unique {
			models = append(models, mongo.IndexModel{Keys: bson.D{{Key: field(i.Name), Value: 1}}, Options: options.Index().SetUnique(true)})
			continue
		}
		models = append(models, mongo.IndexModel{Keys: bson.D{{Key: field(i.Name), Value: 1}, {Key: "_id", Value: 1}}})
	}
	if err := r.index(ctx, c, models...); err != nil {
		return fmt.Errorf("cannot make the indexes of %s: %w", s.Name, err)
	}
	return nil
}

func (r *Records) setIndex(ctx context.Context, c *mongo.Collection, s store.Schema, d found) error {
	set := bson.D{}
	for _, i := range s.Indexes {
		set = append(set, bson.E{Key: field(i.Name), Value: values(i, d.Doc)})
	}
	if len(set) == 0 {
		return nil
	}
	return r.try(ctx, callTime, func(ctx context.Context) error {
		_, err := c.UpdateOne(ctx, bson.D{{Key: "_id", Value: d.Key}, {Key: "rev", Value: d.Rev}}, bson.D{{Key: "$set", Value: set}})
		return err
	})
}

// dropIndexes drops what an earlier declaration made.
func (r *Records) dropIndexes(ctx context.Context, c *mongo.Collection) error {
	var names []string
	err := r.try(ctx, callTime, func(ctx context.Context) error {
		list, err := c.Indexes().ListSpecifications(ctx)
		names = nil
		for _, s := range list {
			names = append(names, s.Name)
		}
		return err
	})
	var s mongo.ServerError
	if errors.As(err, &s) && s.HasErrorCode(26) { // there is no such collection
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "x_") {
			continue
		}
		err := r.try(ctx, longTime, func(ctx context.Context) error { return c.Indexes().DropOne(ctx, name) })
		if errors.As(err, &s) && s.HasErrorCode(27) { // another server dropped it
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}
