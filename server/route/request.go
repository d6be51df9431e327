package route

import (
	"context"
	"net/netip"
)

// Request is what the listener knows about a request.
type Request struct {
	ID   string     // also in the answer's X-Request-Id and in the log
	Addr netip.Addr // of the client: the peer, or what a trusted proxy says
}

type requestKey struct{}

// WithRequest attaches what is known about a request.
func WithRequest(ctx context.Context, r Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// Of returns what is known about the request of a context.
func Of(ctx context.Context) Request {
	r, _ := ctx.Value(requestKey{}).(Request)
	return r
}
