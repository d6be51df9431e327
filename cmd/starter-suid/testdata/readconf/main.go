// Command readconf prints what the setuid helper reads in each text of a singularity.conf
// that it gets, which a byte of value 1 ends: it is built with its tag.
package main

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"singularity/conf"
)

func main() {
	all, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	for text := range strings.SplitSeq(strings.TrimSuffix(string(all), "\x01"), "\x01") {
		read(text)
		fmt.Print("\x01")
	}
}

func read(text string) {
	c, err := conf.Read(strings.NewReader(text))
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	for _, d := range conf.Directives() {
		fmt.Printf("%s = %v\n", d.Name, reflect.ValueOf(d.Field(c)).Elem())
	}
}
