package server

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
)

func TestInspectKeyOverGRPC(t *testing.T) {
	conn := startServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := &kvCaller{pb.NewKVClient(conn), t, ctx}
	cluster := pb.NewClusterClient(conn)
	written := c.put("k", "value")
	deleted, err := c.Delete(ctx, &pb.DeleteRequest{Key: []byte("k")})
	if err != nil {
		t.Fatal(err)
	}
	other := c.put("other", "v")
	r, err := cluster.InspectKey(ctx, &pb.InspectKeyRequest{Key: []byte("k")})
	if err != nil || r.Node != 1 || r.Shard != 2 || r.Replica != 1 || !r.Leading || r.Floor != 0 || r.LastRevision != other || r.Applied == 0 || r.More || len(r.Versions) != 2 {
		t.Fatalf("%v, %v", r, err)
	}
	newest, oldest := r.Versions[0], r.Versions[1]
	if newest.Revision != deleted.Revision || !newest.Tombstone || newest.Bytes != 0 || oldest.Revision != written || oldest.Tombstone || oldest.Bytes != 5 {
		t.Errorf("%v", r.Versions)
	}
	if oldest.Session == 0 || newest.Session != oldest.Session || newest.Sequence <= oldest.Sequence {
		t.Errorf("written by %v", r.Versions)
	}
	if r, err = cluster.InspectKey(ctx, &pb.InspectKeyRequest{Key: []byte("none")}); err != nil || len(r.Versions) != 0 || r.LastRevision != other {
		t.Errorf("of a key that was never written: %v, %v", r, err)
	}
	_, err = cluster.InspectKey(ctx, &pb.InspectKeyRequest{})
	refused(t, "no key", err, codes.InvalidArgument, nil)
}
