// Command starter-verify tells whether an image may be started: it gets the open
// image as descriptor 3, how much of it to read ("lazy" or "full") and the
// directory of the user's keyrings as arguments, and prints a verdict. It is a
// program of its own so that no check of signatures is part of the one that
// starts containers.
package main

import (
	"context"
	"os"
	"time"

	"singularity/sif"
	"singularity/sign"
)

func main() {
	if len(os.Args) != 3 {
		os.Exit(2)
	}
	image := os.NewFile(3, "image")
	fi, err := image.Stat()
	if err != nil {
		os.Exit(2)
	}
	o := sign.Options{Now: time.Now(), How: sign.Lazy, Keyrings: sign.Keyrings(os.Args[2])}
	if os.Args[1] == "full" {
		o.How = sign.Full
	}
	f, err := sif.Open(image, fi.Size())
	if err != nil {
		os.Exit(2)
	}
	if _, err := os.Stdout.Write(sign.Judge(context.Background(), f, o).Encode()); err != nil {
		os.Exit(2)
	}
}
