package main

import (
	"os"

	"golang.org/x/sys/unix"

	"singularity/cli/unlock"
	images "singularity/image"
	"singularity/priv"
)

// keyOf puts a pipe with the key of an encrypted image, which the variables of a start open,
// into a request and returns its number. With -bit the key has another bit, with
// -short a byte less, with -random nothing of the key; with -file it is in a file, and
// with -nokey there is no descriptor of that number. With -of it is that of the other
// image.
func keyOf(r *priv.Request, im *images.Image, how, other string) int {
	if how == "-of" {
		var err error
		im, err = images.Open(other)
		check(err)
	}
	_, exported, err := unlock.Find("", false).Open(im)
	check(err)
	key := exported[len(exported)-priv.KeySize:]
	switch how {
	case "-bit":
		key[31] ^= 1
	case "-short":
		key = key[1:]
	case "-random":
		unix.Getrandom(key, 0)
	}
	from, to, err := os.Pipe()
	check(err)
	if how == "-file" {
		from, err = os.CreateTemp("", "singularity-key")
		check(err)
		os.Remove(from.Name())
		to = from
	}
	_, err = to.Write(key)
	check(err)
	if how == "-file" {
		_, err = from.Seek(0, 0)
		check(err)
	} else {
		to.Close()
	}
	open = append(open, from)
	if how != "-nokey" {
		r.FDs = append(r.FDs, int(from.Fd()))
	}
	return int(from.Fd())
}
