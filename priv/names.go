package priv

import (
	"bufio"
	"io"
	"strconv"
	"strings"

	"singularity/conf"
)

// maxUsers bounds /etc/passwd and /etc/group, in bytes.
const maxUsers = 16 << 20

// find looks for the first line of a file like /etc/passwd in which match holds.
// A name service is not asked: who is not in the file is nobody here.
func find(file string, match func(fields []string) bool) []string {
	f, err := conf.OpenOwned(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxUsers))
	for lines.Scan() {
		if fields := strings.Split(lines.Text(), ":"); len(fields) > 3 && match(fields) {
			return fields
		}
	}
	return nil
}

const (
	users  = "/etc/passwd"
	groups = "/etc/group"
)

// nameOf returns the name of a user or group, "" for nobody.
func nameOf(file string, id int) string {
	if f := find(file, func(f []string) bool { return f[2] == strconv.Itoa(id) }); f != nil {
		return f[0]
	}
	return ""
}

// homeOf is the home directory of a user, "" if none is known.
func homeOf(uid int) string {
	if f := find(users, func(f []string) bool { return f[2] == strconv.Itoa(uid) }); len(f) > 5 {
		return f[5]
	}
	return ""
}

// lookup finds the numbers of users and groups for the limits on images.
var lookup = conf.Names{
	User:  func(name string) (int, bool) { return idOf(users, name) },
	Group: func(name string) (int, bool) { return idOf(groups, name) },
}

func idOf(file, name string) (int, bool) {
	f := find(file, func(f []string) bool { return f[0] == name })
	if f == nil {
		return 0, false
	}
	id, err := strconv.ParseUint(f[2], 10, 32)
	return int(id), err == nil
}
