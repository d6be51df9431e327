// Package fetch turns an image reference into a local image.
package fetch
