package revision

import (
	"testing"

	"go.uber.org/goleak"
)

// Every test closes what it starts; a goroutine that is left over fails the package.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
