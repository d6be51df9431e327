package mongo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"singularity/server/store"
)

// Times: of one call, of a call that reads or removes much, and of a call with
// all that is tried again; an election takes some ten seconds.
const (
	callTime  = 5 * time.Second
	longTime  = 60 * time.Second
	patience  = 20 * time.Second
	firstWait = 20 * time.Millisecond
	maxWait   = time.Second
)

// errUnknown: a connection broke, and what is there now does not tell whether
// the write was made.
var errUnknown = errors.New("the connection to the database broke, and it is not known whether the write was made")

// passing are codes of faults that pass: an election, a shutdown, an interruption.
var passing = []int{6, 7, 89, 91, 134, 189, 262, 317, 9001, 10107, 11600, 11602, 13435, 13436}

// passes tells whether a call that failed so may do better soon.
func passes(err error) bool {
	// The driver puts what it found out about a server into words of its own.
	text := fmt.Sprint(err)
	if strings.Contains(text, "x509: ") {
		return false
	}
	var s mongo.ServerError
	if errors.As(err, &s) && slices.ContainsFunc(passing, s.HasErrorCode) {
		return true
	}
	if mongo.IsNetworkError(err) || mongo.IsTimeout(err) {
		return true
	}
	// The driver has no type that is exported for these: a call that waited for a
	// connection when another one broke, or for a server.
	return strings.Contains(text, "connection pool for") || strings.Contains(text, "server selection error")
}

// try makes a call until it does not fail by a fault that passes. The context of
// the caller ends it, and patience.
func (r *Records) try(ctx context.Context, limit time.Duration, call func(context.Context) error) error {
	end, wait := time.Now().Add(patience), firstWait
	for {
		one, cancel := context.WithTimeout(ctx, limit)
		err := call(one)
		cancel()
		if err == nil || !passes(err) || ctx.Err() != nil || time.Now().After(end) {
			return full(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, maxWait)
	}
}

// full tells a full disk from other faults.
func full(err error) error {
	var s mongo.ServerError
	if errors.As(err, &s) && s.HasErrorCode(14031) {
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	return err
}
