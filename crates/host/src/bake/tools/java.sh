# A version of Java with its usual build tools, as the system has them.
set -eu
apt-get update -q
apt-get install -qy --no-install-recommends "openjdk-$VERSION-jdk-headless" maven ant
# Maven may have brought another version. Where build tools look for it, whatever the architecture.
home=$(echo "/usr/lib/jvm/java-$VERSION-openjdk-"*)
ln -sfn "$home" /usr/lib/jvm/default-java
ln -sfn "$home"/bin/* /usr/local/bin/
