package action

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"singularity/container"
	"singularity/container/hot"
	"singularity/plan"
	"singularity/squashfs"
)

// hotCache reads --hot-cache and finds the directory of the cache.
func (s *starter) hotCache() (hot.Config, error) {
	c := hot.Config{Limit: hot.DefaultLimit}
	word := s.o.HotCache
	on, err := strconv.ParseBool(word)
	switch {
	case word == "" || s.o.DisableCache || err == nil && !on:
		return hot.Config{}, nil
	case s.image.Format.Encrypted():
		return hot.Config{}, nil // Security: nothing of it, not even names, may lie on disk in clear
	case err == nil:
		c.Blocks = true
	case word == "trace":
	default:
		var ok bool
		if c.Limit, ok = plan.ParseSize(word); !ok {
			return c, errors.New("--hot-cache=" + word + ": neither true, false, trace nor a size such as 512m or 2g")
		}
		c.Blocks = true
	}
	// What a program of the image is called says best what it will touch.
	c.Program = s.verb + " " + s.o.App
	if s.verb == "exec" && len(s.args) > 0 {
		c.Program = "exec " + s.args[0]
	}
	if c.Root, err = CacheDir(os.Getenv); err != nil {
		s.log.Debug("no hot blocks: " + err.Error())
	}
	return c, nil
}

// CacheDir returns the directory that holds the user's caches: the parent of
// "cache".
func CacheDir(getenv func(string) string) (string, error) {
	if dir := getenv("SINGULARITY_CACHEDIR"); dir != "" {
		return filepath.Abs(dir)
	}
	return ConfigDir(getenv)
}

// watch begins to keep hot blocks if this process serves the image.
func (s *starter) watch() {
	r, ok := s.fsys.(*squashfs.Reader)
	if !ok || s.hold != nil || container.IsTerminal() {
		return
	}
	if s.image.Trees[s.image.Root] != nil {
		s.hotConfig.Blocks = false // every byte of the image is checked
	}
	s.hot = hot.Begin(s.hotConfig, hot.Image{File: s.image.File, Format: int(s.image.Format), Off: s.image.Off, Size: s.image.Size, Reader: r})
}
