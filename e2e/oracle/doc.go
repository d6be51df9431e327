// Package oracle holds tests that compare what we read and write with what the
// reference SIF library does. It is a module of its own, so that the library
// enters no program of ours: run the tests with go test in this folder.
//
// sif_test.go compares images; sign_test.go is the place of the comparison of
// signatures.
package oracle
