package build

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxApps bounds the apps of an image whose metadata is collected.
const maxApps = 1024

// inspectApps collects the metadata of the SCIF apps that the image has. A file
// that cannot be read as what it should be is left out: apps of an image that
// came from elsewhere must not make a build fail.
func (b *builder) inspectApps() (map[string]*attributes, error) {
	scif, err := openAt(b.root, "scif", unix.O_DIRECTORY)
	if err != nil {
		return nil, nil // none
	}
	defer scif.Close()
	dir, err := openAt(scif, "apps", unix.O_DIRECTORY)
	if err != nil {
		return nil, nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxApps)
	if err != nil && len(names) > 0 {
		return nil, err
	}
	apps := map[string]*attributes{}
	for _, name := range names {
		app, err := openAt(dir, name, unix.O_DIRECTORY)
		if err != nil {
			continue
		}
		meta, err := openAt(app, "scif", unix.O_DIRECTORY)
		app.Close()
		if err != nil {
			continue
		}
		apps[name], err = inspectApp(meta, name)
		meta.Close()
		if err != nil {
			return nil, err
		}
	}
	return apps, nil
}

// inspectApp collects the metadata of one app from its directory scif.
func inspectApp(meta *os.File, name string) (*attributes, error) {
	a := new(attributes)
	if a.scripts(meta) != nil {
		return a, nil
	}
	if data, err := readFile(meta, "labels.json"); err == nil && json.Unmarshal(data, &a.Labels) != nil {
		a.Labels = nil
	}
	env, err := openAt(meta, "env", unix.O_DIRECTORY)
	if err != nil {
		return a, nil
	}
	defer env.Close()
	names, err := env.Readdirnames(maxApps)
	if err != nil && len(names) > 0 {
		return nil, err
	}
	for _, n := range names {
		data, err := readFile(env, n)
		if err != nil || !strings.HasSuffix(n, ".sh") {
			continue
		}
		if a.Environment == nil {
			a.Environment = map[string]string{}
		}
		a.Environment["/scif/apps/"+name+"/scif/env/"+n] = validText(data)
	}
	return a, nil
}

// scripts reads the scripts in a directory with metadata.
func (a *attributes) scripts(meta *os.File) error {
	for name, text := range map[string]*string{
		"runscript": &a.Runscript, "test": &a.Test, "runscript.help": &a.Helpfile, "startscript": &a.Startscript,
	} {
		data, err := readFile(meta, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		*text = validText(data)
	}
	return nil
}
