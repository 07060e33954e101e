//go:build planted

package replica

import (
	"testing"

	"github.com/kiloraft/kiloraft/internal/planted"
)

// A view that is not looked at again after it was opened shows what was before: no run of
// the simulation can tell, where a read is one step.
func TestPlantedBugs(t *testing.T) {
	defer planted.Choose("")
	for _, bug := range []planted.Bug{"", planted.DescriptorNotRechecked} {
		planted.Choose(bug)
		want := "new"
		if bug != "" {
			want = "old"
		}
		if got, _ := readAcrossAChange(t, get("\x02k")); string(got.Result.Value) != want || got.Err != nil {
			t.Errorf("with %q: %+v", bug, got)
		}
	}
}
