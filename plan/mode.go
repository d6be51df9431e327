package plan

import "errors"

// ErrOCIMode says that OCI mode was asked for.
var ErrOCIMode = errors.New("cannot start a container in OCI mode: it is not part of this version")

// Native checks that a container in native mode is what o, and an
// administrator who may have made OCI mode the default, ask for. The notes are
// warnings.
func Native(o *Options, ociDefault bool) (notes []string, err error) {
	switch {
	case o.OCI && o.NoOCI:
		return nil, errors.New("--oci and --no-oci cannot be used together")
	case o.Compat && o.NoCompat:
		return nil, errors.New("--compat and --no-compat cannot be used together")
	case o.OCI || ociDefault && !o.NoOCI:
		return nil, ErrOCIMode
	case o.KeepLayers:
		return nil, errors.New("--keep-layers is for OCI mode only, which is not part of this version: leave it out")
	case o.ShareNS && o.NoSharedMount:
		return nil, errors.New("--sharens and --no-shared-mount cannot be used together")
	}
	if o.NoCompat {
		notes = append(notes, "--no-compat applies to --oci mode only, ignoring")
	}
	return notes, nil
}
