// Command singularity-server hosts images and keys; see package server.
package main

import (
	"os"

	"singularity/server"
)

func main() {
	os.Exit(server.Main(os.Args))
}
