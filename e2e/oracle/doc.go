// Package oracle holds tests that compare what we read, write and print with what
// the reference SIF library and its program do.
//
// It is a module of its own, so that the library enters no program of ours: run
// go test in this folder, and go mod tidy here when the requirements of the
// module above have changed. sif_test.go compares images, siftool_test.go
// commands; sign_test.go is the place of the comparison of signatures, sbom_test.go
// that of bills of materials with their schemas.
package oracle
