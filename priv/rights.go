//go:build !starter

package priv

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"singularity/conf"
)

// Rights returns what the administrator's files give to a user with those groups, as
// the process says that judges for the helper: capabilities, and whether networks of
// the administrator may be used.
func Rights(uid int, gids []int) *Verdict {
	user := nameOf(users, uid)
	var of []string
	for _, g := range gids {
		if name := nameOf(groups, g); name != "" {
			of = append(of, name)
		}
	}
	v, err := rights(user, of)
	if err != nil {
		return &Verdict{Text: err.Error()}
	}
	return v
}

func rights(user string, groups []string) (*Verdict, error) {
	if user == "" {
		return nil, errors.New("the caller is no user of this host, so nothing was granted")
	}
	list, err := conf.LoadCapabilities(conf.CapabilityPath(), conf.OpenOwned)
	if err != nil {
		return nil, err
	}
	c, err := conf.LoadOwned(conf.Path())
	if err != nil {
		return nil, err
	}
	return given(user, groups, list, c), nil
}

func given(user string, groups []string, list *conf.Capabilities, c *conf.Config) *Verdict {
	v := &Verdict{OK: true, Nets: slices.Contains(c.AllowNetUsers, user) ||
		slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(c.AllowNetGroups, g) })}
	for _, word := range list.Granted(user, groups...) {
		v.Caps |= capBits(word)
	}
	return v
}

// capBits is the set that a word of capability.json means.
func capBits(word string) uint64 {
	if strings.EqualFold(word, "ALL") || strings.EqualFold(word, "CAP_ALL") {
		return 1<<64 - 1
	}
	if n := conf.CapNumber(word); n >= 0 {
		return 1 << n
	}
	return 0
}

// nameOf returns the name of a user or group, "" for nobody.
func nameOf(file string, id int) string {
	if f := find(file, 2, strconv.Itoa(id)); f != nil {
		return f[0]
	}
	return ""
}
