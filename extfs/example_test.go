package extfs_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"

	"singularity/extfs"
)

func Example() {
	file, _ := os.Open("testdata/ext4.img.gz")
	defer file.Close()
	z, _ := gzip.NewReader(file)
	image, _ := io.ReadAll(z)

	f, err := extfs.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := f.ReadFile("/to-deep", 1<<20) // a link to /a/b/deep
	fmt.Printf("%q %v\n", text, err)

	_, err = f.Walk("/no/such/file", true)
	fmt.Println(err)
	// Output:
	// "deep\n" <nil>
	// cannot find "/no/such/file" in the image: file does not exist
}
