package action

import (
	"os"

	"singularity/fetch/recent"
)

// Remote tells whether image must be fetched: it has a scheme other than
// instance, and there is no file of that name.
func Remote(image string) bool {
	switch Scheme(image) {
	case "", "instance":
		return false
	}
	_, err := os.Lstat(image)
	return err != nil
}

// recentImage returns the path of the image in the cache that the reference of v
// named lately, "" if that is not known here.
func (v *Invocation) recentImage() string {
	if v.Options.DisableCache || v.Options.DockerLogin {
		return ""
	}
	root := recent.Root(os.Getenv, func() string {
		dir, err := ConfigDir(os.Getenv)
		if err != nil {
			return ""
		}
		return dir
	})
	if root == "" {
		return ""
	}
	return recent.Lookup(root, v.Image, recent.Window(os.Getenv))
}

// WithImage sets the image of v to the file at path and returns argv, the
// command line that v was read from, with that in the image's place.
func (v *Invocation) WithImage(argv []string, path string) []string {
	v.Image = path
	at := len(argv) - len(v.Args) - 1
	list := append([]string{}, argv[:at]...)
	return append(append(list, path), v.Args...)
}
