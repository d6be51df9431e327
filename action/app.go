package action

import (
	"errors"
	"strings"

	"singularity/container/env"
)

// appDir is where an app of an image has its files.
func appDir(name string) string { return "/scif/apps/" + name }

// checkApp refuses an app that the image has not.
func (s *starter) checkApp() error {
	name := s.o.App
	if name == "" {
		return nil
	}
	if env.ValidApp(name) {
		if st, err := s.files.Stat(appDir(name)); err == nil && st.Mode.IsDir() {
			return nil
		}
	}
	hint := "the image has no apps"
	if list, err := s.files.ReadDir("/scif/apps"); err == nil && len(list) > 0 {
		hint = "its apps are: " + strings.Join(list, ", ")
	}
	return &Failure{Err: errors.New("Could not locate the container application: " + name), Code: 1, Hint: hint}
}

// app returns the active app with its environment scripts, or nil.
func (s *starter) app() *env.App {
	if s.o.App == "" {
		return nil
	}
	return &env.App{Name: s.o.App, Scripts: s.scripts(appDir(s.o.App) + "/scif/env")}
}

// scripts reads the environment scripts of a directory of the image.
func (s *starter) scripts(dir string) []env.Script {
	names, err := s.files.ReadDir(dir)
	if err != nil {
		s.log.Debug("no environment scripts in " + dir + ": " + err.Error())
	}
	var out []env.Script
	for _, n := range names {
		if !strings.HasSuffix(n, ".sh") {
			continue
		}
		text, err := s.files.ReadFile(dir+"/"+n, maxEnvScript)
		if err != nil {
			s.log.Warning("Cannot read " + dir + "/" + n + " of the image: " + err.Error())
			continue
		}
		out = append(out, env.Script{Name: n, Text: string(text)})
	}
	return out
}

// hasTest tells whether the image, or its active app, has a test script.
func (s *starter) hasTest() bool {
	name := "/.singularity.d/test"
	if s.o.App != "" {
		name = appDir(s.o.App) + "/scif/test"
	}
	_, err := s.files.Stat(name)
	return err == nil
}
