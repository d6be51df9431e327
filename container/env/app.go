package env

import "strings"

// App is a SCIF app of the image that is to be active.
type App struct {
	Name    string   // checked by ValidApp
	Scripts []Script // those of its directory scif/env
}

// ValidApp tells whether a name can be that of an app: it is a file name, and
// part of a script.
func ValidApp(name string) bool {
	for i := range len(name) {
		if !nameByte(name[i], false) && strings.IndexByte(".+-", name[i]) < 0 {
			return false
		}
	}
	return name != "" && name != "." && name != ".."
}

// activate is the script that makes an app active; $SINGULARITY_APPNAME is its
// name. It takes the place of 95-apps.sh of the image, which does the same with
// means that need a shell.
const activate = `export SCIF_APPNAME="$SINGULARITY_APPNAME" SCIF_APPS=/scif/apps SCIF_DATA=/scif/data
export SCIF_APPROOT="/scif/apps/$SINGULARITY_APPNAME" SCIF_APPDATA="/scif/data/$SINGULARITY_APPNAME"
export SCIF_APPMETA="$SCIF_APPROOT/scif" SCIF_APPINPUT="$SCIF_APPDATA/input" SCIF_APPOUTPUT="$SCIF_APPDATA/output"
export PATH="$SCIF_APPROOT/bin:$SCIF_APPROOT:$PATH"
export LD_LIBRARY_PATH="$SCIF_APPROOT/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
`

// appScript is the name under which an app becomes active: behind the scripts
// that tell what apps there are.
const appScript = "95-apps.sh"

// withApp puts the scripts of the active app in their place. The list is in
// order.
func withApp(list []Script, app *App) []Script {
	if app == nil {
		return list
	}
	var before, after []Script
	for _, s := range list {
		switch {
		case s.Name == appScript:
		case s.Name < appScript:
			before = append(before, s)
		default:
			after = append(after, s)
		}
	}
	own := []Script{{Name: appScript, Text: activate}}
	for _, s := range order(app.Scripts) {
		own = append(own, Script{Name: appScript, Text: s.Text})
	}
	return append(append(before, own...), after...)
}
