// Command readconf prints what the setuid helper reads in a singularity.conf: it is
// built with its tag.
package main

import (
	"fmt"
	"os"
	"reflect"

	"singularity/conf"
)

func main() {
	c, err := conf.Read(os.Stdin)
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	for _, d := range conf.Directives() {
		fmt.Printf("%s = %v\n", d.Name, reflect.ValueOf(d.Field(c)).Elem())
	}
}
