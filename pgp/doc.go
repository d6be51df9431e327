// Package pgp reads and writes OpenPGP keyrings and makes and checks the
// clear-signed messages that SIF signatures are.
//
// In go bytes: a keyring (binary as "gpg --export" writes it, or armored), a
// key to import, a signature object. Out come keys, the bytes of a changed
// keyring, a signature object, or a text together with the key that signed it.
//
// Nothing of the input is trusted. The framing of packets is checked here, with
// limits on sizes and counts, and everything inside a packet by
// github.com/ProtonMail/go-crypto. A key counts only with a valid
// self-signature. A damaged key is reported, stepped over and kept when the ring
// is written again, so that one bad packet neither hides the other keys nor is
// lost. A ring is never written through a parsed form: the packets of every key
// stay as they were read, those of other people's signatures too.
//
// Only version 4 keys are handled, because a SIF signature has room for a
// 20-byte fingerprint. New keys are RSA with an encryption sub-key, and every
// secret packet is protected by the passphrase.
//
// The package knows no path, no terminal and no clock: callers give bytes,
// passphrases and the time at which a signature is judged.
//
// Follows RFC 4880 and RFC 9580 (packets, armor, cleartext signatures).
//
// Files: packet.go (framing, armor), ring.go (rings), key.go (keys and their
// secret parts), cert.go (what of a key its
// owner vouches for, as a key server keeps it), generate.go (new keys), clear.go (clear-signed messages).
package pgp
