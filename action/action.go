// Package action starts containers: the exec, run, shell and test verbs.
package action

// Main runs the singularity program with argv and returns its exit status.
func Main(argv []string) int {
	return 255
}
