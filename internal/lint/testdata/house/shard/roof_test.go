package shard

import "testing"

func TestThatIsTested(t *testing.T) {
	t.Run("ThatWaitedLongEnough", func(*testing.T) {})
}
