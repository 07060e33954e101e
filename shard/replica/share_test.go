package replica

import (
	"encoding/binary"
	"fmt"
	"testing"
)

func shareBelow(t *testing.T, r *Replica, key string) float64 {
	t.Helper()
	share, err := r.shareBelow([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return share
}

func TestShareBelow(t *testing.T) {
	h := newHome(t)
	r, g := h.shard(7, "\x02b", "\x02m")
	if s := shareBelow(t, r, "\x02c00100"); s != 0.5 {
		t.Errorf("of an empty shard %.2f", s)
	}
	h.fill(g, 100, 10, "c")
	if s := shareBelow(t, r, "\x02c00001"); s != 0.5 {
		t.Errorf("of a small one %.2f", s)
	}
	random := newSampler(1)
	for i := range 300 { // 18 MiB that cannot be compressed
		value := make([]byte, 0, 60<<10)
		for len(value) < 60<<10 {
			value = binary.BigEndian.AppendUint32(value, uint32(random.float()*(1<<32)))
		}
		h.do(g, put(fmt.Sprintf("\x02d%05d", i), string(value)))
		if i == 20 { // more than one table
			if s := shareBelow(t, r, "\x02d00002"); s != 0.5 {
				t.Errorf("while most may be in memory %.2f", s)
			}
		}
	}
	for key, want := range map[string]float64{"\x02d00060": 0.2, "\x02d00240": 0.8} { //order-free: each is checked on its own
		if s := shareBelow(t, r, key); s < want-0.1 || s > want+0.1 {
			t.Errorf("%.2f below %q, want %.2f", s, key, want)
		}
	}
}
