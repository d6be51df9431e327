package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/build/deffile"
	"singularity/linux/safepath"
)

// appSections tells which section decides whether one of an app is built.
var appSections = map[string]string{
	"appinstall": "post", "applabels": "labels", "appenv": "environment", "apptest": "test", "apphelp": "help",
	"apprun": "runscript", "appstart": "startscript",
}

func appRoot(name string) string { return "/scif/apps/" + name }
func appData(name string) string { return "/scif/data/" + name }

// appScript returns a section of an app that has text and is to be built.
func (b *builder) appScript(a *deffile.App, name string) (deffile.Section, bool) {
	s, ok := a.Sections[name]
	return s, ok && strings.TrimSpace(s.Text) != "" && b.wants(appSections[name])
}

// appSkeletons makes the directories of the apps, and the script that
// %appinstall begins with.
func (b *builder) appSkeletons() error {
	for i := range b.stage.Apps {
		name := b.stage.Apps[i].Name
		for _, dir := range []string{
			appRoot(name) + "/bin", appRoot(name) + "/lib", appRoot(name) + "/scif/env", appData(name) + "/input", appData(name) + "/output",
		} {
			f, err := safepath.Mkdir(b.root, dir, 0o755)
			if err != nil {
				return fmt.Errorf("cannot make %q of app %q: %w", dir, name, err)
			}
			f.Close()
		}
		env, err := appDir(b.root, appRoot(name)+"/scif/env")
		if err != nil {
			return err
		}
		err = replace(env, "01-base.sh", []byte(appBase(name)), 0o644)
		env.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// appDir opens a directory of an app, inside the image.
func appDir(root *os.File, name string) (*os.File, error) {
	return safepath.Open(root, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// appBase is the environment of an app. A runtime may have set it already.
func appBase(name string) string {
	root := appRoot(name)
	return "#!/bin/sh\n" +
		"export SCIF_APPS=/scif/apps SCIF_DATA=/scif/data SCIF_APPNAME=" + name + " SCIF_APPROOT=" + root + " SCIF_APPMETA=" + root + "/scif\n" +
		"export SCIF_APPDATA=" + appData(name) + " SCIF_APPINPUT=" + appData(name) + "/input SCIF_APPOUTPUT=" + appData(name) + "/output\n" +
		"case \":$PATH:\" in *:" + root + "/bin:*) ;; *) export PATH=\"" + root + "/bin:" + root + ":$PATH\" ;; esac\n" +
		"case \":${LD_LIBRARY_PATH:-}:\" in *:" + root + "/lib:*) ;; *) export LD_LIBRARY_PATH=\"" + root + "/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\" ;; esac\n"
}

// appInstall returns the %appinstall sections as the end of a shell script. Each
// runs in a shell of its own, so that one app does not change the environment of
// the next.
func (b *builder) appInstall() string {
	var s strings.Builder
	for i := range b.stage.Apps {
		a := &b.stage.Apps[i]
		if sec, ok := b.appScript(a, "appinstall"); ok {
			root := appRoot(a.Name)
			fmt.Fprintf(&s, "(\ncd %s\n. %s/scif/env/01-base.sh\n%s)\n", root, root, sec.Text)
		}
	}
	return s.String()
}

// appMetadata writes what the definition says about each app, and the scripts
// by which a runtime finds the apps of the image.
func (b *builder) appMetadata() error {
	if len(b.stage.Apps) == 0 {
		return nil
	}
	// %appinstall may have removed anything.
	if err := b.appSkeletons(); err != nil {
		return err
	}
	for i := range b.stage.Apps {
		a := &b.stage.Apps[i]
		if err := b.oneApp(a); err != nil {
			return fmt.Errorf("cannot write the metadata of app %q: %w", a.Name, err)
		}
	}
	meta, err := realDir(b.root, metaDir)
	if err != nil {
		return err
	}
	defer meta.Close()
	env, err := realDir(meta, "env")
	if err != nil {
		return err
	}
	defer env.Close()
	list, err := b.appVariables()
	if err != nil {
		return err
	}
	if err := replace(env, "94-appsbase.sh", []byte(list), 0o644); err != nil {
		return err
	}
	return replace(env, "95-apps.sh", []byte(appSelect), 0o644)
}

// appSelect makes the active app's environment that of the container, for
// runtimes that leave this to the image.
const appSelect = `#!/bin/sh
if [ -n "${SINGULARITY_APPNAME:-}" ] && [ -d "/scif/apps/$SINGULARITY_APPNAME/scif/env" ]; then
    for script in "/scif/apps/$SINGULARITY_APPNAME/scif/env"/*.sh; do
        if [ -f "$script" ]; then
            . "$script"
        fi
    done
fi
`

func (b *builder) oneApp(a *deffile.App) error {
	meta, err := appDir(b.root, appRoot(a.Name)+"/scif")
	if err != nil {
		return err
	}
	defer meta.Close()
	for _, f := range []struct {
		section, name string
		mode          uint32
	}{
		{"apprun", "runscript", 0o755}, {"appstart", "startscript", 0o755}, {"apptest", "test", 0o755}, {"apphelp", "runscript.help", 0o644},
	} {
		sec, ok := b.appScript(a, f.section)
		if !ok {
			continue
		}
		text := sec.Text
		if f.mode == 0o755 {
			sec.Args = "" // the name of the app
			text = scriptText(sec)
		}
		if err := replace(meta, f.name, []byte(text), f.mode); err != nil {
			return err
		}
	}
	if sec, ok := b.appScript(a, "appenv"); ok {
		env, err := appDir(b.root, appRoot(a.Name)+"/scif/env")
		if err != nil {
			return err
		}
		defer env.Close()
		if err := replace(env, "90-environment.sh", []byte("#!/bin/sh\n"+sec.Text), 0o644); err != nil {
			return err
		}
	}
	return b.appLabels(meta, a)
}

func (b *builder) appLabels(meta *os.File, a *deffile.App) error {
	if !b.wants("labels") {
		return nil
	}
	labels := map[string]string{"SCIF_APP_NAME": a.Name}
	if sec, ok := b.appScript(a, "applabels"); ok {
		for _, l := range deffile.Labels(sec.Text) {
			labels[l.Key] = l.Value
		}
	}
	data, err := json.MarshalIndent(labels, "", "\t")
	if err != nil {
		return err
	}
	return replace(meta, "labels.json", append(data, '\n'), 0o644)
}

// appVariables returns the variables that name the places of every app of the
// image, those of its base too.
func (b *builder) appVariables() (string, error) {
	dir, err := appDir(b.root, "/scif/apps")
	if err != nil {
		return "", err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxApps)
	if err != nil {
		return "", err
	}
	slices.Sort(names)
	var s strings.Builder
	s.WriteString("#!/bin/sh\n")
	for _, name := range names {
		// Security: the name may come from a base image, and is part of a script.
		if strings.Trim(name, appNameBytes) != "" || strings.HasPrefix(name, ".") {
			continue
		}
		word := appWord(name)
		for _, v := range []struct{ variable, path string }{
			{"APPDATA", appData(name)}, {"APPROOT", appRoot(name)}, {"APPMETA", appRoot(name) + "/scif"},
			{"APPBIN", appRoot(name) + "/bin"}, {"APPLIB", appRoot(name) + "/lib"},
		} {
			fmt.Fprintf(&s, "export SCIF_%s_%s=%s\n", v.variable, word, v.path)
		}
		for _, v := range []struct{ variable, path string }{
			{"APPENV", "/scif/env/90-environment.sh"}, {"APPLABELS", "/scif/labels.json"}, {"APPRUN", "/scif/runscript"}, {"APPSTART", "/scif/startscript"},
		} {
			f, err := safepath.Open(b.root, path.Join(appRoot(name), v.path), unix.O_PATH, 0)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
				continue
			}
			if err != nil {
				return "", err
			}
			f.Close()
			fmt.Fprintf(&s, "export SCIF_%s_%s=%s\n", v.variable, word, appRoot(name)+v.path)
		}
	}
	return s.String(), nil
}

const (
	wordBytes    = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
	appNameBytes = wordBytes + ".+-"
)

// appWord makes the name of an app fit for that of a variable.
func appWord(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(wordBytes, r) {
			return r
		}
		return '_'
	}, name)
}
