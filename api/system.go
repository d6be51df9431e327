package api

import "time"

// System is how a server is, for its administrators.
type System struct {
	Version            string    `json:"version"`
	Started            time.Time `json:"started"`
	CertificateExpires time.Time `json:"certificateExpires,omitzero"`
	RecordsAnswer      bool      `json:"recordsAnswer"`
	BlobsAnswer        bool      `json:"blobsAnswer"`
	DiskSize           int64     `json:"diskSize"` // of the file system with the data directory, in bytes
	DiskFree           int64     `json:"diskFree"`
	Uploads            int       `json:"uploads"` // that have not ended
	UploadBytes        int64     `json:"uploadBytes"`
	Undo               string    `json:"undo"` // how long a deleted image can be restored
}

// Collected is what a collection freed, or with DryRun would free.
type Collected struct {
	DryRun      bool  `json:"dryRun"`
	Uploads     int   `json:"uploads"` // old ones that never ended
	UploadBytes int64 `json:"uploadBytes"`
	Contents    int   `json:"contents"` // that no image has
	Bytes       int64 `json:"bytes"`
}
