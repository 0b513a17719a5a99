"""What `eventpush check` looks at beyond connections: decisions are pure, and each problem comes with its remedy."""
