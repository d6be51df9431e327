package library

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"singularity/api"
)

// maxListed bounds a list: a library could go on for ever.
const maxListed = 100_000

// Entities lists the entities that the caller may see.
func (c *Client) Entities(ctx context.Context) ([]api.Entity, error) {
	return list[api.Entity](ctx, c, "/v1/entities", "")
}

// Collections lists those of an entity.
func (c *Client) Collections(ctx context.Context, entity string) ([]api.Collection, error) {
	return list[api.Collection](ctx, c, "/v1/entities/%s/collections", entity)
}

// Containers lists those of entity/collection.
func (c *Client) Containers(ctx context.Context, name string) ([]api.Container, error) {
	return list[api.Container](ctx, c, "/v1/collections/%s/containers", name)
}

// Images lists those of entity/collection/container.
func (c *Client) Images(ctx context.Context, name string) ([]api.Image, error) {
	return list[api.Image](ctx, c, "/v1/containers/%s/images", name)
}

// list gets all pages of a list.
func list[T any](ctx context.Context, c *Client, format, name string) ([]T, error) {
	path := format
	if name != "" {
		escaped, err := segments(name)
		if err != nil {
			return nil, err
		}
		path = fmt.Sprintf(format, escaped)
	}
	all, after := []T{}, ""
	for len(all) < maxListed {
		query := url.Values{"limit": {"1000"}}
		if after != "" {
			query.Set("after", after)
		}
		var page api.Listing[T]
		status, err := c.call(ctx, http.MethodGet, path, query, nil, &page, http.StatusOK)
		if status == http.StatusNotFound {
			return nil, &NoNameError{name}
		}
		if err != nil {
			return nil, err
		}
		all = append(all, page.Data...)
		if page.Page.Next == "" || page.Page.Next == after {
			return all, nil
		}
		after = page.Page.Next
	}
	return nil, fmt.Errorf("the library lists more than %d names", maxListed)
}

// NoNameError says that a library has nothing of a name, or lists nothing.
type NoNameError struct{ Name string }

func (e *NoNameError) Error() string {
	if e.Name == "" {
		return "the library does not list its entities"
	}
	return fmt.Sprintf("there is no %s in the library", e.Name)
}
