package sif_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"singularity/sif"
)

func Example() {
	dir, err := os.MkdirTemp("", "sif")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	w, err := os.Create(filepath.Join(dir, "a.sif"))
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()

	f, err := sif.Create(w, sif.CreateOptions{LaunchScript: sif.LaunchScript, Time: time.Unix(1700000000, 0)},
		sif.Input{Type: sif.DataDefFile, Group: sif.DefaultGroup, Data: strings.NewReader("bootstrap: scratch\n")},
		sif.Input{
			Type:  sif.DataPartition,
			Group: sif.DefaultGroup,
			Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: "amd64"}.Extra(),
			Data:  strings.NewReader("the file system"),
		})
	if err != nil {
		log.Fatal(err)
	}
	for _, o := range f.Objects() {
		fmt.Println(o.ID, o.Type, o.Off, o.Size)
	}
	root, err := f.Primary()
	if err != nil {
		log.Fatal(err)
	}
	p, _ := root.Partition()
	fmt.Println("runs object", root.ID, p.FS, p.Arch)
	// Output:
	// 1 Def.FILE 32176 19
	// 2 FS 32768 15
	// runs object 2 Squashfs amd64
}
