/* The program: everything is in src/cli and the library. */
#include "cli/cli.h"

int main(int argc, char **argv) {
    return vkm_cli_main(argc, argv);
}
