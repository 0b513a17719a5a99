"""More partitions on a running installation: move what is kept by partition to where its keys go from then on."""
