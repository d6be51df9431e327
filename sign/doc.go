// Package sign signs SIF images and verifies their signatures.
//
// A signature covers one group of objects. Signed is a small JSON text, the
// statement, with digests of the image's header and of the descriptor and the
// data of every object of the group:
//
//	{"version":1,
//	 "header":{"digest":"sha256:..."},
//	 "objects":[{"relativeId":0,"descriptorDigest":"sha256:...","objectDigest":"sha256:..."}]}
//
// The statement is stored, clear-signed with OpenPGP, in a signature object that
// is linked to the group. Sign makes such objects, Verify checks them; each
// object is read and hashed once, whatever the number of signatures, and several
// objects at a time.
//
// Of an image only the limits of package sif are relied on; whoever wrote it may
// be hostile. Verify answers which objects are covered, with which data, and by
// whose key; identities come from keys that made a valid signature, never from
// the image. Everything is judged at one time, usually now. It does not tell
// whether the signer can be trusted: the caller gives the keyrings, perhaps a
// function that finds other keys elsewhere, and may name fingerprints that must be
// among the signers. Not covered are the header's
// times and architecture, other groups, and the time of signing.
//
// DSSE envelopes are checked with the keys that the caller gives. The old form of
// signatures that covers data only ("SIFHASH:") counts on request alone.
//
// The image in an OCI-SIF may have cosign signatures as well: texts about its
// manifest, kept as an image beside it. SignCosign and VerifyCosign look at these
// alone, and at the digests of all blobs.
//
// The package does not lock files, ask for passphrases, or print.
//
// Files: statement.go the signed text, hash.go reading and hashing, sign.go,
// verify.go, object.go one signature object, legacy.go the old form,
// tree*.go hash trees, cosign.go and ocisif.go signatures of OCI images.
package sign
