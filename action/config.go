package action

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"singularity/host"
)

// ConfigDir returns the directory of the user's own settings: below the home
// directory of the user who called us, even where a user namespace shows
// somebody else, and whatever HOME says.
func ConfigDir(getenv func(string) string) (string, error) {
	if dir := getenv("SINGULARITY_CONFIGDIR"); dir != "" {
		return filepath.Abs(dir)
	}
	u, err := host.LookupUser(RealUID(), os.Getgid())
	if err != nil || !filepath.IsAbs(u.Home) {
		return "", Fatal(errors.New("cannot find the home directory of this user"),
			"let SINGULARITY_CONFIGDIR name a directory of your own")
	}
	return filepath.Join(u.Home, ".singularity"), nil
}

// KeyringDir returns the directory of the user's keyrings.
func KeyringDir(getenv func(string) string) (string, error) {
	if dir := getenv("SINGULARITY_SYPGPDIR"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := ConfigDir(getenv)
	return filepath.Join(dir, "sypgp"), err
}

// RealUID returns our uid as it is outside the user namespace we are in.
func RealUID() int {
	uid := os.Getuid()
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return uid
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		inside, err1 := strconv.Atoi(f[0])
		outside, err2 := strconv.Atoi(f[1])
		count, err3 := strconv.Atoi(f[2])
		if errors.Join(err1, err2, err3) == nil && uid >= inside && uid-inside < count {
			return outside + uid - inside
		}
	}
	return uid
}
