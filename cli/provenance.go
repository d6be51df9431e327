package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"singularity/action"
	"singularity/image"
	"singularity/provenance"
	"singularity/sif"
	"singularity/sign"
)

// writeProvenance writes what the image tells of its sources, and beside it what
// is to be thought of that: who signed the envelope that it is in, and whether it
// is about this image. With a key, anything but a good signature is an error.
//
// Security: its author wrote that, so it is checked to be JSON and made safe for
// a terminal. Who vouches for it, a signature tells.
func writeProvenance(w io.Writer, log *action.Log, im *image.Image, path, key string) error {
	none := action.Fatal(fmt.Errorf("cannot inspect %q: it has no provenance", path), "only SIF files built by this version or a later one have")
	if im.SIF == nil {
		return none
	}
	o, ok := im.SIF.Named(sif.DataJSON, provenance.Envelope)
	if !ok {
		if o, ok = im.SIF.Named(sif.DataJSON, provenance.Object); !ok {
			return none
		}
		if key != "" {
			return fmt.Errorf("cannot verify the provenance of %q: no envelope with a signature is around it (see verify for signatures of the image)", path)
		}
		text, err := readRecord(im.SIF, o, path)
		if err != nil {
			return err
		}
		note(log, "nobody signed the provenance by itself; a signature of the image covers it (see verify)", aboutImage(im.SIF, text))
		return writeObject(w, im.SIF, o, path, "its provenance")
	}
	return writeAttestation(w, log, im.SIF, o, path, key)
}

func readRecord(f *sif.File, o sif.Object, path string) ([]byte, error) {
	if o.Size > 2*provenance.MaxSize {
		return nil, fmt.Errorf("cannot inspect %q: its provenance has %d bytes", path, o.Size)
	}
	data, err := f.ReadAll(o)
	if err != nil {
		return nil, fmt.Errorf("cannot inspect %q: %w", path, err)
	}
	return data, nil
}

// writeAttestation writes the statement in an envelope.
func writeAttestation(w io.Writer, log *action.Log, f *sif.File, o sif.Object, path, key string) error {
	data, err := readRecord(f, o, path)
	if err != nil {
		return err
	}
	var keys []*sign.PublicKey
	if key != "" {
		k, err := publicKey(key)
		if err != nil {
			return err
		}
		keys = append(keys, k)
	}
	a, err := sign.OpenAttestation(data, provenance.PayloadType, keys)
	if err != nil {
		return fmt.Errorf("cannot verify the provenance of %q: %w", path, err)
	}
	about := aboutImage(f, a.Payload)
	switch {
	case key == "":
		note(log, "the provenance is in an envelope that the key "+strings.Join(a.KeyIDs, ", ")+" says to have signed, which was not checked: name the key by --key", about)
	case a.By == nil:
		return fmt.Errorf("cannot verify the provenance of %q: no signature of the key in %q is good", path, key)
	case about != nil:
		return fmt.Errorf("cannot verify the provenance of %q: %w", path, about)
	default:
		note(log, "the signature of the provenance by the key "+a.By.ID+" is good, and it is about this image", nil)
	}
	return writeJSONText(w, a.Payload, path, "its provenance")
}

// aboutImage tells what is wrong with a statement about the image.
func aboutImage(f *sif.File, text []byte) error {
	s, err := provenance.Parse(text)
	if err != nil {
		return err
	}
	return s.Check(f)
}

// note says to a person what the JSON does not.
func note(log *action.Log, text string, wrong error) {
	log.Info(escapeJSON(strings.ToUpper(text[:1]) + text[1:]))
	if wrong != nil && !errors.Is(wrong, provenance.ErrOther) {
		log.Info("It has not the form that this version writes")
	} else if wrong != nil {
		log.Warning(escapeJSON(wrong.Error()))
	}
}
