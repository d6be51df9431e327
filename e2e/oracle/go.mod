module singularity/e2e/oracle

go 1.26.0

require (
	github.com/sylabs/sif/v2 v2.24.2
	singularity v0.0.0
)

require (
	github.com/google/go-containerregistry v0.22.1 // indirect
	github.com/google/uuid v1.6.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace singularity => ../..
