//go:build !amd64

package signals

import "errors"

func catch(mask uint64, fd int) error { return errors.ErrUnsupported }
