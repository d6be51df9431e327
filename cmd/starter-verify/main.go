// Command starter-verify tells whether an image may be started: it gets the open
// image as descriptor 3 and prints a verdict. Its arguments say how much of the
// image to read ("lazy" or "full"), where the user's keyrings and the site's files
// are, whether the site's execution control list is to be asked, and the id of an
// object in the group to judge, 0 for the root partition. It is a
// program of its own so that no check of signatures, and no parser of TOML, is
// part of the one that starts containers.
//
// The setuid helper starts it with "site", how much to read, "list" or "no", and
// the user id of its caller, as package priv says; the verdict is another one then.
package main

import (
	"context"
	"os"
	"strconv"

	"singularity/linux/secret"
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
	list, ring := os.NewFile(4, "ecl.toml"), os.NewFile(5, "the site's keyring")
	if len(args) != 3 || image == nil || list == nil || ring == nil || secret.Hide() != nil {
		return 2
	}
	caller, err := strconv.Atoi(args[2])
	if err != nil {
		return 2
	}
	s := sign.HelperSite{Full: args[0] == "full", Ring: ring, Caller: caller}
	if args[1] == "list" {
		s.List = list
	}
	if _, err := os.Stdout.Write(sign.JudgeForHelper(context.Background(), image, s).Encode()); err != nil {
		return 2
	}
	return 0
}
