// Command starter-verify tells whether an image may be started: it gets the open
// image as descriptor 3 and prints a verdict. Its arguments say how much of the
// image to read ("lazy" or "full"), where the user's keyrings and the site's files
// are, whether the site's execution control list is to be asked, and the id of an
// object in the group to judge, 0 for the root partition. It is a
// program of its own so that no check of signatures, and no parser of TOML, is
// part of the one that starts containers.
//
// The setuid helper starts it with "site", "full" or an empty word, "list" or an empty
// word, and the user id of its caller, as package priv says; the verdict is another one then.
// With "capabilities" or "networks" and the caller's groups it looks at no image, but
// at what the administrator's files give to the caller. With "key" as the last word it
// holds the key that it reads against the header of an encrypted root partition.
package main

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/linux/secret"
	"singularity/priv"
	"singularity/sign"
)

func main() {
	image := os.NewFile(3, "image")
	if len(os.Args) > 1 && os.Args[1] == "site" {
		os.Exit(site(image, os.Args[2:]))
	}
	if len(os.Args) != 6 || image == nil {
		os.Exit(2)
	}
	object, err := strconv.ParseUint(os.Args[5], 10, 32)
	if err != nil {
		os.Exit(2)
	}
	v, err := sign.JudgeFile(context.Background(), image, sign.Site{
		Full: os.Args[1] == "full", Keyrings: os.Args[2], Dir: os.Args[3], List: os.Args[4] == "list", ListOnly: os.Args[4] == "only", Object: uint32(object),
	})
	if err != nil {
		os.Exit(2)
	}
	if _, err := os.Stdout.Write(v.Encode()); err != nil {
		os.Exit(2)
	}
}

// site judges for the setuid helper.
func site(image *os.File, args []string) int {
	if len(args) < 3 || image == nil || secret.Hide() != nil {
		return 2
	}
	// Locked memory is there before the limits.
	key, err := readKey(args)
	if err != nil || limit() != nil {
		return 2
	}
	caller, err := strconv.Atoi(args[2])
	if err != nil {
		return 2
	}
	if args[0] == priv.Capabilities || args[0] == priv.NetworksOf {
		return say(rights(args[0], caller, args[1], args[3:]))
	}
	s := sign.HelperSite{Full: args[0] == "full", Caller: caller}
	if key != nil {
		s.Unlock = unlock(key)
	}
	if s.Ring, err = conf.OpenOwned(conf.Dir() + "/global-pgp-public"); errors.Is(err, os.ErrNotExist) {
		s.Ring, err = os.Open("/dev/null") // a ring without keys
	}
	if err == nil && args[1] == "list" {
		s.List, err = conf.OpenOwned(conf.Dir() + "/" + sign.ListName)
	}
	v := &priv.Verdict{}
	if err != nil {
		v.Text = err.Error()
	} else {
		v = sign.JudgeForHelper(context.Background(), image, s)
	}
	return say(v)
}

// rights are what the administrator's files give to the caller with those groups.
func rights(what string, caller int, groups string, words []string) *priv.Verdict {
	var gids []int
	for _, word := range strings.Fields(groups) {
		gid, err := strconv.Atoi(word)
		if err != nil {
			return &priv.Verdict{Text: err.Error()}
		}
		gids = append(gids, gid)
	}
	return priv.Rights(what, caller, gids, words)
}

func say(v *priv.Verdict) int {
	if _, err := os.Stdout.Write(v.Encode()); err != nil {
		return 2
	}
	return 0
}

// limits of the process's resources, once it judges for the helper: it writes no
// files, locks and dumps no memory, and a check ends some time.
var limits = [...]struct {
	which int
	most  uint64
}{
	{unix.RLIMIT_CORE, 0}, {unix.RLIMIT_FSIZE, 0}, {unix.RLIMIT_MEMLOCK, 0}, {unix.RLIMIT_MSGQUEUE, 0},
	{unix.RLIMIT_NOFILE, 32}, {unix.RLIMIT_NPROC, 4096}, {unix.RLIMIT_STACK, 8 << 20}, {unix.RLIMIT_DATA, 1 << 30}, {unix.RLIMIT_CPU, 1800},
}

// limit lowers the limits of resources for good.
func limit() error {
	for _, l := range limits {
		var old unix.Rlimit
		if err := unix.Getrlimit(l.which, &old); err != nil {
			return err
		}
		most := min(l.most, old.Max)
		if err := unix.Setrlimit(l.which, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return err
		}
	}
	return nil
}
