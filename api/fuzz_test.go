package api

import (
	"testing"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// FuzzError: whatever status another node answers with, it becomes an error with
// words, and that one goes on to the next node with its code and its words.
func FuzzError(f *testing.F) {
	for _, c := range closedSet() {
		b, err := proto.Marshal(status.Convert(Status(c.err)).Proto())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m spb.Status
		if proto.Unmarshal(b, &m) != nil || m.Code == int32(codes.OK) {
			return
		}
		err := Error(status.ErrorProto(&m))
		if err == nil || err.Error() == "" {
			t.Fatalf("%v became %v", &m, err)
		}
		if again := Error(Status(err)); again == nil || again.Error() == "" {
			t.Fatalf("%v became %v, and that %v", &m, err, again)
		}
	})
}
