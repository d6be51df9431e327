// Command starter-verify tells whether an image may be started: it gets the open
// image as descriptor 3 and prints a verdict. Its arguments say how much of the
// image to read ("lazy" or "full"), where the user's keyrings and the site's files
// are, whether the site's execution control list is to be asked, and the id of an
// object in the group to judge, 0 for the root partition. It is a
// program of its own so that no check of signatures, and no parser of TOML, is
// part of the one that starts containers.
package main

import (
	"context"
	"os"
	"strconv"

	"singularity/sign"
)

func main() {
	image := os.NewFile(3, "image")
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
