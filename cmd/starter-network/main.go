// Command starter-network keeps networks of the administrator for containers of
// ordinary users. The setuid helper becomes it, after it has checked what is asked
// for; nobody else may execute it.
package main

import (
	"os"

	"singularity/priv/keeper"
)

func main() {
	os.Exit(keeper.Main(os.Args[1:]))
}
